"""What the guard asks before every act, with what only the flow can find out: the reason and the
limits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from breakfix.act import steps
from breakfix.act.guard import Acting, Beside, Expected
from breakfix.act.repair import known_boot_id
from breakfix.errors import Refused
from breakfix.flow.assessment import assess
from breakfix.flow.looking import look
from breakfix.flow.services import Services
from breakfix.model import (
    Case,
    FailureClass,
    Node,
    NodeState,
    Refusal,
    RefusalReason,
    SignalKind,
    SignalMode,
    Verdict,
)
from breakfix.plan.limits import ACT_GUARDS, Candidate, Guard, first_refusal
from breakfix.plan.world import World
from breakfix.resilience.together import Together

T = TypeVar("T")

#: An act of recovery needs no fault and is held by no limit, only by halt `all` and by people.
RECOVERY = Expected(is_recovery=True)


_GATHER_S = 0.5


@dataclass(frozen=True, slots=True)
class SideBySide:
    """What quarantines that run side by side read together; see `resilience.together`."""

    acts: Beside
    world: Together[World]

    @classmethod
    def of(cls, number: int) -> SideBySide:
        """For so many at a time. A look at the cluster is dear: it waits for all of them a bit."""
        return cls(Beside(), Together(size=number, gather_s=_GATHER_S))


def acting(services: Services, beside: SideBySide | None = None) -> Acting:
    """The ports with which act works."""
    return Acting(
        cluster=services.cluster,
        ledger=services.book,
        clock=services.clock,
        namespace=services.settings.namespace,
        limits=services.policy.limits,
        mirrors_nvsentinel=services.policy.mirror.nvsentinel,
        beside=beside.acts if beside is not None else None,
    )


def disruption(
    services: Services,
    case: Case,
    *,
    is_reason_fresh: bool = False,
    guards: tuple[Guard, ...] = ACT_GUARDS,
    beside: SideBySide | None = None,
) -> Expected:
    """What a disruptive act of this case expects. Reason and limits are asked once per act or pass.

    `is_reason_fresh`: the caller has judged the node just now.
    """
    return Expected(
        reason_gone=None if is_reason_fresh else _once(lambda n: _reason_gone(services, case, n)),
        limit_broken=_once(lambda n: _limit_broken(services, case, n, guards, beside)),
    )


def _once(ask: Callable[[Node], T]) -> Callable[[Node], T]:
    """The first answer, for as long as the node's version is the same."""
    known: dict[str, T] = {}

    def answer(node: Node) -> T:
        if node.resource_version not in known:
            known[node.resource_version] = ask(node)
        return known[node.resource_version]

    return answer


def _limit_broken(
    services: Services,
    case: Case,
    node: Node,
    guards: tuple[Guard, ...],
    beside: SideBySide | None,
) -> Refusal | None:
    """The guardrails that may have changed since the admission, with the node itself left out."""
    candidate = Candidate(
        node,
        case.failure_class,
        case.action,
        services.clock.now(),
        is_by_person=bool(case.detail.get("is_by_hand")),
        is_begun=drain_is_begun(services, case),
    )
    world = look(services) if beside is None else beside.world(lambda: look(services))
    return first_refusal(candidate, world, guards)


def drain_is_begun(services: Services, case: Case) -> bool:
    """Whether pods were asked to go already, in the round that the case is in."""
    known = services.book.steps(case.id)
    return steps.step_named(known, f"{steps.DRAIN}-{steps.current_round(known)}") is not None


def _reason_gone(services: Services, case: Case, node: Node) -> str:
    """Why the case's reason does not stand any more; an empty string while it does.

    An event (an XID, a double-bit error) stands until the node boots anew or is repaired. A state
    must be seen again now. Where telemetry cannot say, nobody may act on it: Refused (TELEMETRY).
    """
    if node.boot_id != known_boot_id(acting(services), case):
        return "the node has booted since: it is judged afresh"
    if case.state is NodeState.REPAIRING and "climbed_because" in case.detail:
        return _next_rung_needless(services, case, node)
    if case.detail.get("is_by_hand"):
        return ""
    verdict = assess(services).judgement.verdict(case.node)
    if _has_event(case):
        _heed_common_cause(verdict)
        return ""
    if verdict is None:
        raise Refused(RefusalReason.TELEMETRY, "the node could not be judged")
    return _by_verdict(verdict)


def _next_rung_needless(services: Services, case: Case, node: Node) -> str:
    """A further repair rests on the check that the last one did not pass; what can be looked at
    again now, is.
    """
    verdict = assess(services).judgement.verdict(case.node)
    _heed_common_cause(verdict)
    after = str(case.detail.get("climbed_after", ""))
    if after.startswith("check_signals"):
        if verdict is None:
            raise Refused(RefusalReason.TELEMETRY, "the node could not be judged")
        return _by_verdict(verdict)
    due = int(case.detail.get("gpus_expected", 0))
    is_whole = node.gpus_allocatable == node.gpus_capacity >= due > 0
    if after.startswith("check_gpus") and node.is_ready and is_whole:
        return "all its GPUs are back"
    return ""


def _heed_common_cause(verdict: Verdict | None) -> None:
    """A crowd that has formed since the admission holds the act, however sure the event was."""
    if verdict is not None and verdict.refusal is RefusalReason.COMMON_CAUSE:
        raise Refused(RefusalReason.COMMON_CAUSE, verdict.reason)


def why_recovered(case: Case, verdict: Verdict | None) -> str:
    """Why a node that was just judged needs no repair any more; an empty string where it may.

    The rule by which an act is refused as its reason is gone; what cannot be told is no recovery.
    """
    if verdict is None or case.detail.get("is_by_hand") or _has_event(case):
        return ""
    try:
        return _by_verdict(verdict)
    except Refused:
        return ""


def _has_event(case: Case) -> bool:
    return any(
        f.get("kind") == SignalKind.EVENT and f.get("mode") != SignalMode.NEVER
        for f in case.detail.get("findings", ())
    )


def _by_verdict(verdict: Verdict) -> str:
    if verdict.refusal is not None:
        raise Refused(verdict.refusal, verdict.reason)
    if any(f.mode is not SignalMode.NEVER for f in verdict.findings):
        return ""
    if verdict.failure_class is FailureClass.TELEMETRY_LOST:
        raise Refused(RefusalReason.TELEMETRY, f"cannot tell: {verdict.reason}")
    return "the fault is not seen any more"
