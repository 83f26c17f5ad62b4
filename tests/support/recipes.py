"""What `deploy/` says, read."""

import os
import re
import subprocess
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
        r"\$\{(\w+)(?::(?:-([^}]*)|\?[^}]*))?\}",
        lambda found: values.get(found[1], found[2] or ""),
        COMPOSE.read_text(),
    )
    parsed: dict[str, Any] = yaml.safe_load(text)
    return parsed


def environment(service: Mapping[str, Any]) -> dict[str, str]:
    """What a service of it is told."""
    return {name: str(value) for name, value in service.get("environment", {}).items()}


def run(*command: str | Path, **environ: str) -> str:
    """What a program answers that has to accept a file of `deploy/`."""
    done = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
