"""Which pods a drain takes, and by which ladder: kubectl's choice, then policy's word on each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from breakfix.model import Pod, PodAction, PodDecision
from breakfix.plan.drain_pods import decide_pods
from breakfix.policy_drain import Drain, Ladder, takes


def decide_drain(
    pods: Iterable[Pod], *, daemon_sets: frozenset[tuple[str, str]], drain: Drain
) -> list[PodDecision]:
    """One decision per pod, in the order given, by kubectl's rules under this policy.

    A ladder may leave pods on the node (`skip`). One that only waits for pods to finish loses none
    of what kubectl refuses to lose, so they are not refused.
    """
    known = list(pods)
    decided = decide_pods(
        known,
        daemon_sets=daemon_sets,
        allow_disk_empty_dir=drain.may_delete_disk_empty_dir,
        allow_unmanaged=drain.may_delete_unmanaged,
    )
    return [_climbing(d, p, drain) for d, p in zip(decided, known, strict=True)]


def _climbing(decision: PodDecision, pod: Pod, drain: Drain) -> PodDecision:
    if decision.action is PodAction.SKIP:
        return decision
    ladder = drain.ladder_of(pod.namespace, pod.labels)
    if ladder is not None and ladder.skip:
        text = f"left alone by policy (ladder {ladder.name})"
        return replace(decision, action=PodAction.SKIP, reason=text, gpus=0)
    rungs = ladder.plain if ladder else drain.default_rungs
    if decision.action is PodAction.REFUSE and takes(rungs):
        return decision
    text = decision.reason
    if decision.action is PodAction.REFUSE:
        text = f"waited for, never removed: {decision.reason}"
    return replace(
        decision,
        action=PodAction.EVICT,
        reason=_named(text, ladder),
        gpus=0 if pod.is_finished else pod.gpus,
        ladder=rungs,
        order=ladder.order if ladder else 0,
    )


def _named(reason: str, ladder: Ladder | None) -> str:
    return f"{reason} (ladder {ladder.name})" if ladder else reason


def ladders_in_words(decisions: Iterable[PodDecision]) -> tuple[str, ...]:
    """How many pods leave by which ladder, the most first; nothing where all are just evicted."""
    counted = Counter(d.climbs for d in decisions if d.action is PodAction.EVICT)
    if set(counted) <= {"evict"}:
        return ()
    return tuple(f"{n} pod{'s' if n > 1 else ''}: {how}" for how, n in counted.most_common())
