"""The page of settings names every knob there is, with its default and meaning, and no other."""

import re
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from registry.settings import Settings

PAGE = Path(__file__).resolve().parent.parent / "docs" / "settings.md"


def rows(model: type[BaseModel], prefix: str) -> list[str]:
    found = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found += rows(kind, f"{prefix}{name.upper()}__")
        else:
            found.append(f"| `{prefix}{name.upper()}` | {default(field)} | {field.description} |")
    return found


def default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "per user"
    value = field.default
    if value in ("", ()):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def test_the_page_lists_the_settings_as_they_are() -> None:
    listed = re.findall(r"^\| `REGISTRY_.*$", PAGE.read_text(), re.MULTILINE)
    assert listed == rows(Settings, "REGISTRY_")


def test_every_setting_says_what_it_means() -> None:
    assert all(not row.endswith("None |") for row in rows(Settings, "REGISTRY_"))
