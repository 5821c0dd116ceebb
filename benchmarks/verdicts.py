"""Verdicts, so that those of two processes can be compared."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from breakfix.model import Judgement


def summary(judgement: Judgement) -> dict[str, Any]:
    """How many verdicts of which class, and a digest of everything but the ages of samples."""
    plain = [_plain(v) for v in msgspec.to_builtins(judgement.verdicts)]
    counts: dict[str, int] = {}
    for verdict in plain:
        if verdict["findings"]:
            word = f"{verdict['failure_class'] or 'healthy'}:{verdict['recommended_action']}"
            counts[word] = counts.get(word, 0) + 1
    return {
        "verdicts": len(plain),
        "speaking": counts,
        "incidents": len(judgement.incidents),
        "digest": hashlib.sha256(msgspec.json.encode(plain)).hexdigest(),
    }


def _plain(verdict: dict[str, Any]) -> dict[str, Any]:
    findings = [{**f, "age_s": 0.0} for f in verdict["findings"]]
    return {**verdict, "findings": findings}
