"""How findings, and what people said of them, are printed wherever they are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from breakfix.cli.judge import print_why
from breakfix.cli.output import print_table, say
from breakfix.decide.kept import kept_policy
from breakfix.model import Labelling
from breakfix.policy import Policy

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


def print_kept_why(why: dict[str, Any], detail: Mapping[str, Any], policy: Policy) -> None:
    """The explanation of a record, and whether it is by the rules that it was made under."""
    print_why(why)
    made_by = kept_policy(detail)
    if made_by and made_by != policy.hash:
        say(
            f"made under policy {made_by[:12]}, explained by the one in force now"
            f" ({policy.hash[:12]}): what it says of confidence may differ"
        )
    elif made_by:
        say(f"policy {made_by[:12]}, which is in force")


def said(labelling: Labelling) -> str:
    """One answer in one line."""
    text = f"{labelling.actor} on {labelling.at:%Y-%m-%d %H:%M} UTC: {labelling.label}"
    if labelling.failure_class:
        text += f", {labelling.failure_class}"
    if labelling.until:
        text += f" until {labelling.until:%Y-%m-%d %H:%M} UTC"
    return text + (f" ({labelling.note})" if labelling.note else "")
