"""What a case knows, for those who repair by hand: plain JSON values, bounded in size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from breakfix.errors import NotFound
from breakfix.flow.services import Services
from breakfix.model import Case

_FINDINGS, _STEPS, _LETTERS = 50, 50, 500


def bundle(services: Services, case: Case) -> Mapping[str, Any]:
    """The case, its findings, what was tried and what came of it, and the labels of the node."""
    return {
        "case": case.id,
        "node": case.node,
        "node_uid": case.node_uid,
        "failure_class": case.failure_class.value,
        "confidence": case.confidence,
        "reason": case.reason[:_LETTERS],
        "opened_at": case.opened_at.isoformat(),
        "attempt": case.attempt,
        "findings": [_finding(f) for f in list(case.detail.get("findings", ()))[:_FINDINGS]],
        "steps": [
            {
                "name": s.name,
                "status": s.status.value,
                "started_at": s.started_at.isoformat(),
                "text": str(s.detail.get("text", ""))[:_LETTERS],
            }
            for s in services.book.steps(case.id)[-_STEPS:]
        ],
        "labels": _labels(services, case),
    }


def _finding(finding: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("signal", "key", "gpu", "value", "threshold", "text", "source")
    return {k: str(finding[k])[:_LETTERS] for k in kept if k in finding}


def _labels(services: Services, case: Case) -> dict[str, str]:
    """Only what describes the machine: pool, rack, SKU, fabric."""
    try:
        node = services.cluster.node(case.node)
    except NotFound:
        return {}
    return {"pool": node.pool, "rack": node.rack, "sku": node.sku, "fabric": node.fabric}
