"""Evictions of one drain: several in flight, all under the cluster's one rate, each of them after a
check that is fresh.

Only the requests run in threads. Whether a pod may go now is asked here, in turn: a person's
uncordon, an abort or the kill switch stops the next dispatch, and nothing that was not yet sent is
sent after it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from breakfix.act.guard import Acting
from breakfix.errors import ClusterError
from breakfix.leaving import Standing
from breakfix.model import Case, RungKind
from breakfix.policy_drain import Drain
from breakfix.ports import Eviction
from breakfix.resilience.retry import backoff_s

RATE = "evictions"
_PASS_S = 60.0  # after that long a pass ends, so that its caller can see to its deadline
_TRIES = 3  # of one pod in a pass, while the API server asks for time
_STALEST_S, _FRESHEST_S = 0.5, 0.1  # how old the check before an eviction may be
_FIRST_S, _LONGEST_S = 1.0, 15.0
#: Longer than any request may take by its own timeouts and retries: a bound, not a wish.
_ANSWER_S = 600.0

Check = Callable[[], None]  # raises what forbids the next eviction


@dataclass(frozen=True, slots=True)
class Taken:
    """What the API server said of one pod, last."""

    standing: Standing
    answer: Eviction


def take_all(
    acting: Acting, case: Case, drain: Drain, pods: Sequence[Standing], check: Check
) -> list[Taken]:
    """Evict or delete these pods; the answers in the order in which the pods were first sent.

    Raises what `check` raises, and what a request or its record raised, once nothing is in flight
    any more.
    """
    if not pods:
        return []
    dispatch = _Dispatch(acting, case, drain, check, pods)
    workers = min(drain.evictions_in_flight, len(pods))
    with ThreadPoolExecutor(workers, thread_name_prefix="breakfix-evict") as pool:
        dispatch.run(pool)
    return dispatch.taken()


class _Dispatch:
    """Lives for one pass; only `_send` runs in the threads, and it changes nothing here."""

    def __init__(
        self, acting: Acting, case: Case, drain: Drain, check: Check, pods: Sequence[Standing]
    ) -> None:
        self._acting, self._case, self._drain = acting, case, drain
        self._check, self._clock = check, acting.clock
        self._queue = deque(pods)
        self._pending: dict[Future[Eviction], Standing] = {}
        self._answers: dict[str, Taken] = {}
        self._tries: dict[str, int] = {}
        self._places: deque[float] = deque()  # moments at which an eviction may be sent
        self._ends = self._clock.monotonic() + _PASS_S
        self._checked = -math.inf  # the pods were listed since the caller's check: ask anew
        self._fresh_s = max(_FRESHEST_S, min(_STALEST_S, 0.9 / drain.evictions_per_s))

    def taken(self) -> list[Taken]:
        return list(self._answers.values())

    def run(self, pool: ThreadPoolExecutor) -> None:
        try:
            while self._queue or self._pending:
                if self._queue and len(self._pending) < self._drain.evictions_in_flight:
                    self._send_next(pool)
                else:
                    self._await_answer(_ANSWER_S)
        finally:
            self._queue.clear()

    def _send_next(self, pool: ThreadPoolExecutor) -> None:
        place = self._next_place()
        if place > self._ends:
            self._queue.clear()
            return
        self._clock.sleep(max(0.0, place - self._clock.monotonic()))
        self._await_answer(0.0)  # an error that has come meanwhile ends the pass here
        if not self._queue:
            return
        if self._clock.monotonic() - self._checked >= self._fresh_s:
            self._checked = self._clock.monotonic()
            self._check()
        standing = self._queue.popleft()
        self._pending[pool.submit(self._send, standing)] = standing

    def _next_place(self) -> float:
        """When the next one may be sent.

        Places are taken half a second's worth at a time, so that few are lost when the pass ends.
        """
        per_s = self._drain.evictions_per_s
        if not self._places:
            count = min(len(self._queue), max(1, math.floor(per_s / 2)))
            wait_s = self._acting.ledger.reserve(RATE, count=count, per_s=per_s)
            first = self._clock.monotonic() + wait_s
            self._places.extend(first + i / per_s for i in range(count))
        return self._places.popleft()

    def _await_answer(self, timeout_s: float) -> None:
        done, _ = wait(self._pending, timeout=timeout_s, return_when=FIRST_COMPLETED)
        if timeout_s and not done:
            text = f"no eviction was answered within {timeout_s:.0f} s"
            raise ClusterError(text, is_transient=True)
        for future in done:
            self._heed(self._pending.pop(future), future.result())

    def _heed(self, standing: Standing, answer: Eviction) -> None:
        key = standing.pod.uid
        self._answers[key] = Taken(standing, answer)
        if answer.status != "busy":
            return
        tries = self._tries[key] = self._tries.get(key, 0) + 1
        if tries >= _TRIES:  # enough: the pass ends, its caller comes back later
            self._queue.clear()
            return
        self._queue.append(standing)
        pause_s = backoff_s(
            tries, first_s=_FIRST_S, longest_s=_LONGEST_S, asked_s=answer.retry_after_s
        )
        self._hold_places(pause_s)

    def _hold_places(self, pause_s: float) -> None:
        """The server asks everybody for time, not only for this pod."""
        not_before = self._clock.monotonic() + pause_s
        if not self._places:
            self._places.append(not_before)
            return
        later = not_before - self._places[0]
        if later > 0:
            self._places = deque(p + later for p in self._places)

    def _send(self, standing: Standing) -> Eviction:
        """Audited before: a request whose answer is lost may have had its effect all the same."""
        pod, grace_s = standing.pod, None if self._drain.grace_s < 0 else self._drain.grace_s
        cluster = self._acting.cluster
        if standing.do is RungKind.DELETE:
            self._audit("pod.deleting", standing)
            was_there = cluster.delete_pod(pod.namespace, pod.name, pod.uid, grace_s=grace_s)
            answer = Eviction("evicted" if was_there else "gone", "deleted past its budgets")
        else:
            self._audit("pod.evicting", standing)
            answer = cluster.evict(pod.namespace, pod.name, pod.uid, grace_s=grace_s)
        if answer.status in ("evicted", "error"):
            is_deleted = standing.do is RungKind.DELETE
            self._audit("pod.deleted" if is_deleted else f"pod.{answer.status}", standing, answer)
        return answer

    def _audit(self, event: str, standing: Standing, answer: Eviction | None = None) -> None:
        self._acting.ledger.audit(
            event,
            self._case.id,
            actor=self._case.run_id,
            detail={
                "pod": standing.id,
                "uid": standing.pod.uid,
                "message": answer.message if answer else "",
            },
            now=self._clock.now(),
        )
