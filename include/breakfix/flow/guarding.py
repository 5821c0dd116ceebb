"""The guard before every act, with what only the flow can ask: is the reason still true, are limits still kept."""

from __future__ import annotations

from breakfix.act.guard import check
from breakfix.errors import Refused
from breakfix.flow.assessment import assess
from breakfix.flow.looking import look
from breakfix.flow.services import Services
from breakfix.model import (
    Case,
    FailureClass,
    Node,
    Refusal,
    RefusalReason,
    SignalKind,
    SignalMode,
    Verdict,
)
from breakfix.plan.limits import ACT_GUARDS, Candidate, first_refusal


def guarded(
    services: Services,
    case: Case,
    *,
    is_begun: bool = True,
    is_recovery: bool = False,
    checks_reason: bool = True,
) -> Node:
    """Everything that must hold before an act of this case, read afresh. Raises Refused, NotFound.

    `is_begun`: the node carries our quarantine, so its absence is a person's hand. A recovery is held by no
    limit and needs no fault; a disruption needs both its reason and its limits.
    """
    needs_reason = checks_reason and not is_recovery
    return check(
        services.cluster,
        services.book,
        case,
        services.policy,
        namespace=services.settings.namespace,
        now=services.clock.now(),
        is_recovery=is_recovery,
        is_begun=is_begun,
        reason_gone=(lambda node: reason_gone(services, case, node)) if needs_reason else None,
        limits_broken=None if is_recovery else (lambda node: limits_broken(services, case, node)),
    )


def limits_broken(services: Services, case: Case, node: Node) -> Refusal | None:
    """The guardrails that may have changed since the admission, asked with the node itself left out."""
    candidate = Candidate(node, case.failure_class, case.action, services.clock.now())
    return first_refusal(candidate, look(services), ACT_GUARDS)


def reason_gone(services: Services, case: Case, node: Node) -> Refused | None:
    """Why the case's reason does not stand any more, or None while it does.

    An event (an XID, a double-bit error) stands until the node boots anew or is repaired. A state must be
    seen again now; when telemetry cannot say, nobody may act on it.
    """
    if node.boot_id != case.boot_id:
        text = "the node has booted since: it is judged afresh"
        return Refused(RefusalReason.REASON_GONE, text)
    if case.detail.get("is_by_hand") or _has_event(case):
        return None
    verdict = assess(services).judgement.verdict(case.node)
    if verdict is None:
        return Refused(RefusalReason.TELEMETRY, "the node could not be judged")
    return _by_verdict(verdict)


def _has_event(case: Case) -> bool:
    return any(
        f.get("kind") == SignalKind.EVENT and f.get("mode") != SignalMode.NEVER
        for f in case.detail.get("findings", ())
    )


def _by_verdict(verdict: Verdict) -> Refused | None:
    if verdict.refusal is not None:
        return Refused(verdict.refusal, verdict.reason)
    if any(f.mode is not SignalMode.NEVER for f in verdict.findings):
        return None
    if verdict.failure_class is FailureClass.TELEMETRY_LOST:
        return Refused(RefusalReason.TELEMETRY, f"cannot tell: {verdict.reason}")
    return Refused(RefusalReason.REASON_GONE, "the fault is not seen any more")
