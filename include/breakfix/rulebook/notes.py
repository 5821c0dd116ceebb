"""What the schema and the default policy's own comments say of one key. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from breakfix.rulebook.places import Document
from breakfix.rulebook.schema import field_schema


@dataclass(frozen=True, slots=True)
class Note:
    """One key: what it is for, its default, and the comment beside it in the default policy."""

    description: str = ""
    type: str = ""
    default: Any = None
    comment: str = ""


def note_of(name: str, default_text: str) -> Note:
    """The note of a dotted name such as `limits.max_attempts`."""
    path = name.split(".")
    schema = field_schema(path)
    return Note(
        description=str(schema.get("description", "")),
        type=_type(schema),
        default=schema.get("default"),
        comment=_comment(path, default_text) if default_text else "",
    )


def _type(schema: dict[str, Any]) -> str:
    if "examples" in schema and "anyOf" in schema:
        return "a duration: " + ", ".join(schema["examples"])
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    found = schema.get("type", "")
    bounds = [
        f"{word} {schema[key]:g}"
        for key, word in (
            ("minimum", "at least"),
            ("exclusiveMinimum", "above"),
            ("maximum", "at most"),
        )
        if key in schema
    ]
    return ", ".join([" or ".join(found) if isinstance(found, list) else str(found), *bounds])


def _comment(path: Sequence[str], default_text: str) -> str:
    place = Document("the default policy", default_text).place(path)
    if place is None:
        return ""
    line = default_text.splitlines()[place.line - 1]
    return line.partition(" #")[2].strip()
