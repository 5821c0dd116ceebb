"""Empty a node, one bounded pass at a time, until nothing is left: each pod by the rung of its
ladder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from breakfix.act import guard, marks, steps
from breakfix.act.evictions import Taken, take_all
from breakfix.act.guard import Acting, Expected
from breakfix.leaving import (
    Blocker,
    BlockerKind,
    Standing,
    budget_in,
    is_asked,
    is_left_behind,
    standings,
    turn_of,
)
from breakfix.model import Case, Pod, PodAction, PodDecision, RungKind, Step, StepStatus
from breakfix.policy_drain import Drain
from breakfix.ports import Cluster

#: Decides pods of a node, given the (namespace, name) of the DaemonSets that exist.
DecidePods = Callable[[Sequence[Pod], frozenset[tuple[str, str]]], Sequence[PodDecision]]
#: Since when the pods of an order have had their time.
Since = Callable[[int], datetime]

#: Label of the pods that we start on nodes; a drain leaves them alone.
OUR_PODS = "breakfix.dev/case"


@dataclass(frozen=True, slots=True)
class DrainProgress:
    """One pass. `left` must still leave, terminating ones included; `turn` is their order.

    `blocked`: what the API server would not do now. What else holds pods up, the pods tell.
    """

    left: tuple[Standing, ...]
    evicted: tuple[str, ...] = ()  # namespace/name; deleted ones too
    blocked: tuple[Blocker, ...] = ()
    refused: tuple[PodDecision, ...] = ()
    turn: int = 0
    returned: tuple[str, ...] = ()  # controllers' uids, of evicted pods that came after the drain

    @property
    def is_done(self) -> bool:
        return not self.left and not self.refused


@dataclass(frozen=True, slots=True)
class Emptying:
    """What a pass goes by: the policy, kubectl's choice under it, and each order's beginning.

    `detail` is kept with the step when this pass begins it.
    """

    drain: Drain
    decide: DecidePods
    since: Since
    detail: Mapping[str, Any]
    tolerant: frozenset[str] = frozenset()  # controllers whose pods are not evicted any more


def drain_once(acting: Acting, case: Case, expected: Expected, emptying: Emptying) -> DrainProgress:
    """Do what is to be done now; a pod that may not be taken refuses the pass before any eviction.

    Done when nothing but skipped pods is left; the step `drain-<round>` is finished then.
    """
    name = f"{steps.DRAIN}-{steps.current_round(acting.ledger.steps(case.id))}"
    node = guard.check(acting, case, name, expected)
    left, refused = _look(acting, case, emptying)
    if refused:
        return DrainProgress(left, refused=refused)
    before = {"node_before": marks.picture(node)}
    begun = {"pods": [s.id for s in left], **emptying.detail, **before}
    step, _ = steps.begin(acting, case, name, begun)
    _ask_to_save(acting, case, emptying.drain, left)
    taken = take_all(
        acting,
        case,
        emptying.drain,
        [s for s in left if s.is_taken_now],
        lambda: _still(acting, case, expected),
    )
    left, refused = _look(acting, case, emptying)
    progress = DrainProgress(
        left,
        tuple(t.standing.id for t in taken if t.answer.status == "evicted"),
        tuple(_blocker(t) for t in taken if t.answer.status in ("blocked", "busy", "error")),
        refused,
        turn_of((s.decision, s.pod) for s in left),
        tuple(_newcomers(taken, step)),
    )
    if progress.is_done and step.status is not StepStatus.DONE:
        _, behind = here(acting.cluster, case.node, emptying.drain, acting.clock.now())
        steps.finish(acting, case, name, StepStatus.DONE, _ended(step, progress, behind))
    return progress


def _ended(step: Step, progress: DrainProgress, behind: Sequence[Pod]) -> dict[str, Any]:
    """What the step says at its end; what held pods up before holds none any more."""
    evicted = int(step.detail.get("evicted", 0)) + len(progress.evicted)
    text = f"{evicted} evicted, no pod is left"
    names = [f"{p.namespace}/{p.name}" for p in behind]
    if names:
        text += f" but {len(names)} that only the repair of the dead node can end: {names[0]}"
    ended = {"text": text, "evicted": evicted, "left": 0, "blocked": [], "pods": []}
    return {**ended, "left_behind": names}


def _newcomers(taken: Sequence[Taken], step: Step) -> Iterator[str]:
    """Whose pods were evicted that had come to a node that was cordoned and tainted by then."""
    for t in taken:
        pod = t.standing.pod
        if t.answer.status != "evicted" or pod.controller is None or pod.created_at is None:
            continue
        if pod.created_at > step.started_at:
            yield pod.controller.uid


def _still(acting: Acting, case: Case, expected: Expected) -> None:
    guard.check(acting, case, steps.DRAIN, expected)


def _look(
    acting: Acting, case: Case, emptying: Emptying
) -> tuple[tuple[Standing, ...], tuple[PodDecision, ...]]:
    """(pods that must leave, decisions that refuse), as the cluster is now."""
    pods, _ = here(acting.cluster, case.node, emptying.drain, acting.clock.now())
    by_uid = {p.uid: p for p in pods}
    decisions = emptying.decide(pods, acting.cluster.daemon_sets())
    leaving = [(d, by_uid[d.uid]) for d in decisions if d.action is PodAction.EVICT]
    left = standings(
        leaving,
        since=emptying.since(turn_of(leaving)),
        now=acting.clock.now(),
        checkpoint=emptying.drain.checkpoint,
        case_id=case.id,
        tolerant=emptying.tolerant,
    )
    return left, tuple(d for d in decisions if d.action is PodAction.REFUSE)


def here(
    cluster: Cluster, node: str, drain: Drain, now: datetime
) -> tuple[list[Pod], tuple[Pod, ...]]:
    """(pods of others on the node, those of them that policy leaves behind on a dead one)."""
    pods = [p for p in cluster.pods(node) if OUR_PODS not in p.labels]
    if drain.dead_node == "wait" or not any(p.is_terminating for p in pods):
        return pods, ()
    is_ready = cluster.node(node).is_ready
    behind = {
        p.uid for p in pods if is_left_behind(p, is_node_ready=is_ready, now=now, drain=drain)
    }
    left = tuple(p for p in pods if p.uid in behind)
    return [p for p in pods if p.uid not in behind], left


def _ask_to_save(acting: Acting, case: Case, drain: Drain, left: Sequence[Standing]) -> None:
    """By an annotation, once: the value is the case, so that an answer to another one is none."""
    how = drain.checkpoint
    for s in left:
        is_due = s.do is RungKind.CHECKPOINT and s.is_its_turn and not s.pod.is_terminating
        if not is_due or is_asked(s.pod, how, case.id):
            continue
        detail = {"pod": s.id, "uid": s.pod.uid, "annotation": how.annotation}
        acting.ledger.audit(
            "pod.checkpoint_asked",
            case.id,
            actor=case.run_id,
            detail=detail,
            now=acting.clock.now(),
        )
        acting.cluster.mark_pod(
            s.pod.namespace,
            s.pod.name,
            s.pod.uid,
            annotations={how.annotation: case.id},
            labels={how.label: "requested"} if how.label else {},
        )


def _blocker(taken: Taken) -> Blocker:
    """The message says itself when waiting will not help: it is what people get to read."""
    answer, pod = taken.answer, taken.standing.id
    match answer.status:
        case "error":
            text = f"it needs a person: {answer.message}"
            return Blocker(pod, BlockerKind.BUDGETS, text, needs_person=True)
        case "blocked":
            name = budget_in(answer.message)
            return Blocker(
                pod, BlockerKind.BUDGET, answer.message, name, retry_after_s=answer.retry_after_s
            )
        case _:
            return Blocker(pod, BlockerKind.API, answer.message, retry_after_s=answer.retry_after_s)
