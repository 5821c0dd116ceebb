"""A judgement as JSON: what `judge -o json` prints and the API serves. Pure."""

from __future__ import annotations

from typing import Any

from breakfix.decide.why import Why, explain
from breakfix.model import Coverage, Finding, Incident, Judgement, Observation, Verdict
from breakfix.policy import Policy


def judgement_json(
    observation: Observation, judgement: Judgement, policy: Policy, node: str | None = None
) -> dict[str, Any]:
    """The whole judgement, or with `node` that node's part of it; plain dicts, lists, numbers and
    text. A node that was asked for, or that is not simply healthy, has its `why`.
    """
    return {
        "at": judgement.at.isoformat(),
        "policy": {"version": policy.version, "hash": policy.hash},
        "coverage": {
            name: _coverage(observation.coverage[name]) for name in sorted(observation.coverage)
        },
        "nodes": [
            _verdict(v) | ({"why": why_json(explain(v, policy))} if _is_told(v, node) else {})
            for v in judgement.verdicts
            if node in {None, v.node}
        ],
        "incidents": [_incident(i) for i in judgement.incidents if node is None or node in i.nodes],
        "warnings": list(observation.warnings),
    }


def _is_told(verdict: Verdict, node: str | None) -> bool:
    return bool(node or verdict.findings or verdict.failure_class or verdict.refusal)


def why_json(why: Why) -> dict[str, Any]:
    """An explanation as plain values."""
    return {
        "sentence": why.sentence,
        "failure_class": str(why.failure_class) if why.failure_class else None,
        "confidence": round(why.confidence, 4),
        "wanted": why.wanted,
        "is_proven": why.is_proven,
        "rows": [
            {
                "group": r.group,
                "signals": list(r.signals),
                "gpus": list(r.gpus),
                "weight": r.weight,
                "confidence": round(r.confidence, 4),
                "text": r.text,
                "peers": r.peers,
            }
            for r in why.rows
        ],
        "missing": list(why.missing),
        "uncounted": [
            {"signal": u.signal, "gpu": u.gpu, "text": u.text, "why": u.why} for u in why.uncounted
        ],
        "unknown": list(why.unknown),
    }


def _coverage(cover: Coverage) -> dict[str, Any]:
    return {
        "share": round(cover.share, 4),
        "nodes_seen": len(cover.nodes_seen),
        "nodes_expected": cover.nodes_expected,
        "oldest_age_s": None if cover.oldest_age_s is None else round(cover.oldest_age_s, 3),
        "error": cover.error,
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "node": verdict.node,
        "state": str(verdict.state),
        "failure_class": str(verdict.failure_class) if verdict.failure_class else None,
        "confidence": round(verdict.confidence, 4),
        "findings": [_finding(f) for f in verdict.findings],
        "unknown": list(verdict.unknown),
        "open_findings": [
            {
                "signal": f.signal,
                "gpu": f.gpu,
                "missed_at": f.missed_at.isoformat() if f.missed_at else None,
            }
            for f in verdict.open_findings
        ],
        "recommended_action": str(verdict.recommended_action),
        "refusal": str(verdict.refusal) if verdict.refusal else None,
        "reason": verdict.reason,
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "signal": finding.signal,
        "gpu": finding.gpu,
        "key": finding.key,
        "value": finding.value,
        "threshold": finding.threshold,
        "window_s": finding.window_s,
        "age_s": round(finding.age_s, 3),
        "weight": finding.weight,
        "group": finding.group,
        "mode": str(finding.mode),
        "kind": str(finding.kind),
        "failure_class": str(finding.failure_class),
        "action": str(finding.action),
        "source": finding.source,
        "text": finding.text,
        "held": finding.held,
    }


def _incident(incident: Incident) -> dict[str, Any]:
    return {
        "scope": incident.scope,
        "nodes": list(incident.nodes),
        "failure_classes": [str(c) for c in incident.failure_classes],
        "cause": incident.cause,
        "reason": incident.reason,
    }
