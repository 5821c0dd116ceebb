"""How findings, and what people said of them, are printed wherever they are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from breakfix.cli.output import print_table
from breakfix.model import Labelling

_COLUMNS = ("signal", "gpu", "value", "limit", "window s", "age s", "weight", "group", "what")


def print_findings(title: str, findings: Sequence[Mapping[str, Any]]) -> None:
    """A table of findings as they are stored: plain values."""
    print_table(
        title,
        (*_COLUMNS, "source"),
        (
            (
                f["signal"] + (f" {f['key']}" if f.get("key") else ""),
                *(f.get(k) for k in ("gpu", "value", "threshold", "window_s", "age_s")),
                *(f.get(k) for k in ("weight", "group", "text", "source")),
            )
            for f in findings
        ),
    )


def said(labelling: Labelling) -> str:
    """One answer in one line."""
    text = f"{labelling.actor} on {labelling.at:%Y-%m-%d %H:%M} UTC: {labelling.label}"
    if labelling.failure_class:
        text += f", {labelling.failure_class}"
    if labelling.until:
        text += f" until {labelling.until:%Y-%m-%d %H:%M} UTC"
    return text + (f" ({labelling.note})" if labelling.note else "")
