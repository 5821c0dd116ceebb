"""The Prometheus text format, built from strings that are prepared once."""

from __future__ import annotations

from collections.abc import Mapping

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def escape(value: str) -> str:
    """A label value as the text format wants it."""
    if "\\" in value or '"' in value or "\n" in value:
        value = value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return value


def labels(pairs: Mapping[str, str]) -> str:
    """`a="1",b="2"` without the braces."""
    return ",".join(f'{name}="{escape(value)}"' for name, value in pairs.items())


def header(name: str, kind: str, text: str) -> str:
    """The HELP and TYPE lines of a family."""
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"


def number(value: float) -> str:
    """Integers plain, others with six digits, as the exporters print them."""
    return str(value) if isinstance(value, int) else f"{value:.6f}"
