"""How pods leave a node: whose turn it is, on which rung each stands now, and what holds one up.
Pure.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from breakfix.model import DrainRung, Pod, PodDecision, RungKind
from breakfix.policy_drain import Checkpoint, Drain

_BUDGET = re.compile(r"disruption budget (\S+)")


class BlockerKind(StrEnum):
    """What holds a pod on its node."""

    BUDGET = "budget"  # it allows nothing now
    BUDGETS = "budgets"  # more than one protects the pod: the API server evicts it never
    FINALIZER = "finalizer"  # somebody must let go of the pod first
    STUCK = "stuck_terminating"  # its grace has ended, and it is there
    GRACE = "long_grace"  # it may take longer to stop than the drain has
    SPENT = "ladder_spent"  # the time of its last rung is over
    RETURNS = "comes_back"  # its controller puts a new one on the node, whatever we put there
    API = "api"  # the API server does not answer, or asks for time


@dataclass(frozen=True, slots=True)
class Blocker:
    """A pod that does not leave, and why. `needs_person`: it will not by waiting."""

    pod: str  # namespace/name
    kind: BlockerKind
    message: str
    name: str = ""  # of the budget or finalizer
    needs_person: bool = False
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """One pod that must leave, and the rung it stands on."""

    decision: PodDecision
    pod: Pod
    do: RungKind
    until: datetime | None = None  # when the next rung begins; None: this is the last
    is_spent: bool = False  # its last rung is over, too
    is_its_turn: bool = True
    is_acknowledged: bool = False
    comes_back: bool = False  # evicting it once more would only hurt its service

    @property
    def id(self) -> str:
        return f"{self.decision.namespace}/{self.decision.name}"

    @property
    def is_taken_now(self) -> bool:
        """Whether this rung removes the pod itself, and nobody has begun to yet."""
        is_taking = self.do in (RungKind.EVICT, RungKind.DELETE)
        is_due = is_taking and self.is_its_turn and not self.comes_back
        return is_due and not self.pod.is_terminating

    def says(self) -> str:
        """What happens to the pod now, for people."""
        until = f" until {self.until:%H:%M:%S}" if self.until else ""
        if self.pod.is_terminating:
            by = f", may take until {self.pod.stops_by:%H:%M:%S}" if self.pod.stops_by else ""
            return f"terminating{by}"
        if self.comes_back:
            return "comes back, left alone"
        if not self.is_its_turn:
            return f"waits for its turn (order {self.decision.order})"
        match self.do:
            case RungKind.WAIT:
                return f"may finish{until}"
            case RungKind.CHECKPOINT if self.is_acknowledged:
                return "has saved its work, may finish"
            case RungKind.CHECKPOINT:
                return f"asked to save its work{until}"
            case _:
                return f"to {self.do}{until}"


def standings(
    leaving: Iterable[tuple[PodDecision, Pod]],
    *,
    since: datetime,
    now: datetime,
    checkpoint: Checkpoint,
    case_id: str,
    tolerant: Collection[str] = (),
) -> tuple[Standing, ...]:
    """Where each pod that must leave stands `now`, those of the current turn having begun at
    `since`.

    A finished pod is evicted at once, whatever its ladder: nothing runs in it any more. `tolerant`:
    uids of controllers whose pods come back however often they are evicted.
    """
    pairs = list(leaving)
    turn = turn_of(pairs)

    def standing(decision: PodDecision, pod: Pod) -> Standing:
        if pod.is_finished:
            return Standing(decision, pod, RungKind.EVICT)
        if decision.order != turn:
            first = decision.ladder[0].do if decision.ladder else RungKind.EVICT
            return Standing(decision, pod, first, is_its_turn=False)
        if pod.controller is not None and pod.controller.uid in tolerant:
            return Standing(decision, pod, RungKind.EVICT, comes_back=True)
        is_saved = pod.annotations.get(checkpoint.acknowledged) == case_id
        began = max(since, pod.created_at or since)
        return _climbed(decision, pod, began, now, is_acknowledged=is_saved)

    return tuple(standing(d, p) for d, p in pairs)


def turn_of(leaving: Iterable[tuple[PodDecision, Pod]]) -> int:
    """The lowest order of the pods that are still at work; 0 when there is none."""
    return min((d.order for d, p in leaving if not p.is_finished), default=0)


def _climbed(
    decision: PodDecision, pod: Pod, began: datetime, now: datetime, *, is_acknowledged: bool
) -> Standing:
    """An answer to the checkpoint ends that rung early; the ones after it end as they would."""
    ladder = decision.ladder or (DrainRung(RungKind.EVICT),)
    for rung in ladder:
        until = began + timedelta(seconds=rung.for_s) if rung.for_s else None
        is_saved = rung.do is RungKind.CHECKPOINT and is_acknowledged and rung is not ladder[-1]
        if not is_saved and (until is None or now < until):
            return Standing(decision, pod, rung.do, until, is_acknowledged=is_acknowledged)
        began = until or began
    last = ladder[-1].do
    return Standing(decision, pod, last, is_spent=True, is_acknowledged=is_acknowledged)


def next_change(standing: Sequence[Standing]) -> datetime | None:
    """When the first of them comes to another rung."""
    return min((s.until for s in standing if s.until is not None and s.is_its_turn), default=None)


def is_asked(pod: Pod, checkpoint: Checkpoint, case_id: str) -> bool:
    """Whether this case has asked the pod to save its work."""
    return pod.annotations.get(checkpoint.annotation) == case_id


# --------------------------------------------------------------------------- what holds it up


def holdup(
    standing: Standing,
    *,
    is_node_ready: bool,
    now: datetime,
    deadline: datetime,
    stuck_after_s: float,
) -> Blocker | None:
    """Why a pod does not leave by itself; None while all is well with it."""
    if standing.pod.is_terminating:
        return _terminating(standing, now, deadline, stuck_after_s, is_node_ready=is_node_ready)
    if standing.comes_back:
        who = standing.pod.controller
        text = (
            f"{who.kind if who else 'its controller'} puts a new pod here each time: it tolerates"
            " the cordon, so it is left alone"
        )
        return Blocker(standing.id, BlockerKind.RETURNS, text, needs_person=True)
    if standing.is_spent:
        text = f"still there after the last rung of its ladder ({standing.decision.climbs})"
        return Blocker(standing.id, BlockerKind.SPENT, text, needs_person=True)
    return None


def _terminating(
    standing: Standing,
    now: datetime,
    deadline: datetime,
    stuck_after_s: float,
    *,
    is_node_ready: bool,
) -> Blocker | None:
    pod, stops_by = standing.pod, standing.pod.stops_by
    if stops_by is None:
        return None
    if now < stops_by + timedelta(seconds=stuck_after_s):
        if stops_by <= deadline:
            return None
        text = f"may take until {stops_by:%H:%M:%S} UTC to stop: longer than the drain has"
        return Blocker(standing.id, BlockerKind.GRACE, text)
    ago = f"its time to stop ended at {stops_by:%H:%M:%S} UTC"
    if pod.finalizers:
        text = f"finalizer {', '.join(pod.finalizers)} holds it; {ago}"
        return Blocker(standing.id, BlockerKind.FINALIZER, text, pod.finalizers[0], True)
    why = "" if is_node_ready else ", and the kubelet of the NotReady node does not confirm its end"
    return Blocker(standing.id, BlockerKind.STUCK, f"stuck Terminating: {ago}{why}", "", True)


def is_left_behind(pod: Pod, *, is_node_ready: bool, now: datetime, drain: Drain) -> bool:
    """Whether policy lets the drain end without this pod: only the node's repair can end it."""
    if drain.dead_node != "leave" or is_node_ready or not pod.is_terminating:
        return False
    if pod.stops_by is None:
        return False
    return now >= pod.stops_by + timedelta(seconds=drain.stuck_after_s)


def budget_in(message: str) -> str:
    """The budget that the API server's refusal names."""
    found = _BUDGET.search(message)
    return found[1] if found else ""
