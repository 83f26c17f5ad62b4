"""What `deploy/` says, read."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
COMPOSE = DEPLOY / "compose" / "compose.yaml"
FILLED_IN = {"MODELS_HOST": "models.example.com", "POSTGRES_PASSWORD": "p", "S3_SECRET_KEY": "s"}


def compose(**given: str) -> dict[str, Any]:
    """The compose file with its variables filled in."""
    values = FILLED_IN | given
    text = re.sub(
        r"\$\{(\w+)(?::[-?][^}]*)?\}", lambda found: values.get(found[1], ""), COMPOSE.read_text()
    )
    parsed: dict[str, Any] = yaml.safe_load(text)
    return parsed


def environment(service: Mapping[str, Any]) -> dict[str, str]:
    """What a service of it is told."""
    return {name: str(value) for name, value in service.get("environment", {}).items()}
