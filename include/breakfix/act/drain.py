"""Empty a node through evictions, one bounded pass at a time, until nothing is left.

Evictions go one by one: the rate is limited anyway, and so every single one follows a fresh check.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from breakfix.act import guard, steps
from breakfix.act.guard import Acting, Expected
from breakfix.model import Case, Pod, PodAction, PodDecision, StepStatus
from breakfix.policy import Drain
from breakfix.ports import Eviction

#: Decides pods of a node, given the (namespace, name) of the DaemonSets that exist.
DecidePods = Callable[[Sequence[Pod], frozenset[tuple[str, str]]], Sequence[PodDecision]]

#: Label of the pods that we start on nodes; a drain leaves them alone.
OUR_PODS = "breakfix.dev/case"
_PASS_S = 60.0  # after that long a pass ends, so that its caller can see to its deadline


@dataclass(frozen=True, slots=True)
class Blocked:
    """A pod that could not be evicted now, and why. `needs_person`: it will not be by waiting."""

    pod: str  # namespace/name
    message: str
    needs_person: bool = False


@dataclass(frozen=True, slots=True)
class DrainProgress:
    """One pass. Names are namespace/name; `left` must still go, terminating ones included."""

    left: tuple[str, ...]
    evicted: tuple[str, ...] = ()
    blocked: tuple[Blocked, ...] = ()
    refused: tuple[PodDecision, ...] = ()

    @property
    def is_done(self) -> bool:
        return not self.left and not self.refused


def drain_once(
    acting: Acting, case: Case, expected: Expected, drain: Drain, decide: DecidePods
) -> DrainProgress:
    """Evict what may go now; a pod that may not be taken refuses the pass before any eviction.

    Done when nothing but skipped pods is left; the step `drain-<round>` is finished then.
    """
    name = f"{steps.DRAIN}-{steps.current_round(acting.ledger.steps(case.id))}"
    guard.check(acting, case, name, expected)
    leaving, refused = _look(acting, case, decide)
    if refused:
        return DrainProgress(tuple(_id(d) for d in leaving), refused=refused)
    step, _ = steps.begin(acting, case, name, {"pods": [_id(d) for d in leaving]})
    evicted, blocked = _evict_all(acting, case, expected, drain, leaving=leaving)
    left, refused = _look(acting, case, decide)
    progress = DrainProgress(
        tuple(_id(d) for d in left), tuple(evicted), tuple(blocked), tuple(refused)
    )
    if progress.is_done and step.status is not StepStatus.DONE:
        steps.finish(acting, case, name, StepStatus.DONE, {"text": "no pod is left to evict"})
    return progress


def _look(
    acting: Acting, case: Case, decide: DecidePods
) -> tuple[dict[PodDecision, Pod], tuple[PodDecision, ...]]:
    """(pods that must go, decisions that refuse), as the cluster is now."""
    pods = [p for p in acting.cluster.pods(case.node) if OUR_PODS not in p.labels]
    by_uid = {p.uid: p for p in pods}
    decisions = decide(pods, acting.cluster.daemon_sets())
    leaving = {d: by_uid[d.uid] for d in decisions if d.action is PodAction.EVICT}
    return leaving, tuple(d for d in decisions if d.action is PodAction.REFUSE)


def _evict_all(
    acting: Acting,
    case: Case,
    expected: Expected,
    drain: Drain,
    *,
    leaving: dict[PodDecision, Pod],
) -> tuple[list[str], list[Blocked]]:
    evicted: list[str] = []
    blocked: list[Blocked] = []
    began = acting.clock.monotonic()
    going = [d for d, pod in leaving.items() if not pod.is_terminating]
    for number, decision in enumerate(going):
        if acting.clock.monotonic() - began > _PASS_S:
            break
        if number > 0:
            acting.clock.sleep(1.0 / drain.evictions_per_s)
            guard.check(acting, case, steps.DRAIN, expected)
        answer = _evict(acting, case, drain, decision)
        match answer.status:
            case "evicted":
                evicted.append(_id(decision))
            case "gone" | "conflict":
                pass  # that very pod is no more; whoever has its name now is seen next time
            case status:
                blocked.append(_blocked(decision, answer))
                if status == "busy":
                    break  # the server asks for time
    return evicted, blocked


def _blocked(decision: PodDecision, answer: Eviction) -> Blocked:
    """The message says itself when waiting will not help: it is what people get to read."""
    needs_person = answer.status == "error"
    message = f"it needs a person: {answer.message}" if needs_person else answer.message
    return Blocked(_id(decision), message, needs_person)


def _evict(acting: Acting, case: Case, drain: Drain, decision: PodDecision) -> Eviction:
    """Audited before, as an eviction whose answer is lost may have happened all the same."""
    grace_s = drain.grace_s if drain.grace_s >= 0 else None
    _audit(acting, case, "pod.evicting", decision)
    answer = acting.cluster.evict(decision.namespace, decision.name, decision.uid, grace_s=grace_s)
    if answer.status in ("evicted", "error"):
        _audit(acting, case, f"pod.{answer.status}", decision, answer.message)
    return answer


def _audit(
    acting: Acting, case: Case, event: str, decision: PodDecision, message: str = ""
) -> None:
    acting.ledger.audit(
        event,
        case.id,
        actor=case.run_id,
        detail={"pod": _id(decision), "uid": decision.uid, "message": message},
        now=acting.clock.now(),
    )


def _id(decision: PodDecision) -> str:
    return f"{decision.namespace}/{decision.name}"
