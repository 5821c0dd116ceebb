"""Findings in words. What comes from outside stays data: one line, printable, not endless."""

from __future__ import annotations

from collections.abc import Iterable

from breakfix.model import Finding, OpenFinding

_MAX_SHOWN = 128  # characters of one label's value


def shown(label: str) -> str:
    """A label's value inside a sentence."""
    return "".join(c if c.isprintable() else "?" for c in label[:_MAX_SHOWN])


def missed(finding: OpenFinding) -> str:
    """What is not reported any more, and since when, to the minute."""
    where = f" of GPU {shown(finding.gpu)}" if finding.gpu else ""
    when = (
        f", which spoke before {finding.missed_at:%Y-%m-%d %H:%M} UTC" if finding.missed_at else ""
    )
    return f"{finding.signal}{where}{when}"


def texts(findings: Iterable[Finding]) -> str:
    """What the findings say, each sentence once."""
    return "; ".join(dict.fromkeys(f.text for f in findings))
