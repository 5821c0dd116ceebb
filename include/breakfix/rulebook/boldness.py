"""Whether a change of one value lets automation do more, or less. Pure.

The table is of patterns of dotted names; `*` is one part. What is in no row is told as a change
that a person has to judge.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any

from breakfix.model import REPAIRS, RUNGS, Action, SignalMode
from breakfix.policy import parse_duration

Judge = Callable[[Any, Any], int]  # (before, after) -> 1 bolder, -1 more careful, 0 cannot tell


class Effect(StrEnum):
    """What a change does to automation."""

    BOLDER = "bolder"
    CAREFUL = "more careful"
    OTHER = "to be judged"
    WORDS = "words only"


def effect_of(path: str, before: object, after: object, *, op: str = ">", mode: str = "") -> Effect:
    """The effect of one value's change. `op` and `mode`: of the signal that the value is of; a
    context signal (`never`) makes nothing bolder.
    """
    if path.rpartition(".")[2] in {"version", "text", "source"}:
        return Effect.WORDS
    if path.startswith("signals.") and mode == SignalMode.NEVER:
        return Effect.OTHER
    judge = _judge(path, op)
    sign = judge(before, after) if judge else 0
    return Effect.BOLDER if sign > 0 else Effect.CAREFUL if sign < 0 else Effect.OTHER


def _judge(path: str, op: str) -> Judge | None:
    if re.fullmatch(r"signals\.[^.]+\.(clear_)?threshold", path):
        return {">": _less, ">=": _less, "<": _more}.get(op)
    return next((judge for pattern, judge in _TABLE if re.fullmatch(pattern, path)), None)


def _more(before: Any, after: Any) -> int:
    """More of it is bolder."""
    old, new = _number(before), _number(after)
    return 0 if old is None or new is None else (new > old) - (new < old)


def _less(before: Any, after: Any) -> int:
    return -_more(before, after)


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return float(value)
    try:
        return parse_duration(value)
    except ValueError:
        return None


def _rank(order: Sequence[str]) -> Judge:
    """Later in this order is bolder."""

    def judge(before: Any, after: Any) -> int:
        ranks = [order.index(v) if v in order else -1 for v in (before, after)]
        if max(ranks) < 0:
            return 0
        old, new = ranks
        return (new > old) - (new < old)

    return judge


def _members(sign: int) -> Judge:
    """A list or map of which more members are bolder (1) or more careful (-1)."""

    def judge(before: Any, after: Any) -> int:
        old, new = _set(before), _set(after)
        if new > old:
            return sign
        return -sign if new < old else 0

    return judge


def _set(value: Any) -> set[str]:
    if isinstance(value, Mapping):
        return {f"{k}={v}" for k, v in value.items()}
    return {str(v) for v in value or ()}


_ACTIONS = (Action.NONE.value, Action.REVIEW.value, *(a.value for a in RUNGS))


def _rungs(before: Any, after: Any) -> int:
    """By the first rung; where that is the same, by what else may be done to a node."""
    first = _rank(_ACTIONS)((before or ["none"])[0], (after or ["none"])[0])
    if first:
        return first
    return _members(1)(_repairs_in(before), _repairs_in(after))


def _repairs_in(ladder: Any) -> list[str]:
    return [a for a in ladder or () if a in REPAIRS and a != Action.OPEN_VENDOR_CASE]


_TABLE: tuple[tuple[str, Judge], ...] = (
    # rules
    (r"signals\.[^.]+\.(weight|absence_weight)|xids\.\d+\.weight", _more),
    (r"(signals\.[^.]+|xids\.\d+)\.mode", _rank(["never", "corroborate", "alone"])),
    (r"signals\.[^.]+\.(hold|also_window|peers\.(z|min_nodes))", _less),
    (r"signals\.[^.]+\.clear_window", _more),
    (r"signals\.[^.]+\.is_required", _less),
    (r"(signals|classes)\.[^.]+\.is_change_sensitive", _less),
    (r"signals\.[^.]+\.start_at", _rank(_ACTIONS)),
    (r"app_xids", _members(-1)),
    # classes
    (r"classes\.[^.]+\.mode", _rank(["off", "recommend", "approve", "auto"])),
    (r"classes\.[^.]+\.(min_confidence|diag_level)", _less),
    (r"classes\.[^.]+\.ladder", _rungs),
    # limits
    (r"limits\.out\.[^.]+\.(share|nodes)", _more),
    (r"limits\.out\.[^.]+\.in_service(_share)?", _less),
    (r"limits\.(max_attempts(_of_class)?|max_runs)", _more),
    (r"limits\.(headroom_gpus|headroom_pending|override_hold|attempts_window)", _less),
    (r"limits\.cooldown(_factor|_longest)?", _less),
    (r"limits\.headroom_claims", _rank(["hold", "ignore"])),
    (r"limits\.alerts\.block", _members(-1)),
    (r"limits\.alerts\.ignore", _members(1)),
    (r"limits\.breaker\.most\.[^.]+\.(share|nodes|at_least)", _more),
    (r"limits\.breaker\.(window|cool_down)", _less),
    (r"limits\.emergency\.(longest|answer_within|fleet\.(share|nodes))", _more),
    (r"limits\.emergency\.may_lift", _members(1)),
    (r"limits\.maintenance_(before|after)", _less),
    (r"limits\.(exclusion_labels|hands_off_[a-z]+|maintenance)(\..*)?", _members(-1)),
    (r"limits\.protected_(node_labels|pools|pods)", _members(-1)),
    # common cause
    (r"common_cause\.(min_nodes|min_share|min_share_changed|surge_nodes|surge_share)", _more),
    (r"common_cause\.part_classes", _members(1)),
    (r"common_cause\.window", _less),
    (r"common_cause\.(scopes|facts|changes)", _members(-1)),
    # drain, timing, approvals
    (r"drain\.(evictions_per_s|evictions_in_flight|timeout)", _more),
    (r"drain\.(may_delete|may_delete_disk_empty_dir|may_delete_unmanaged)", _more),
    (r"drain\.dead_node", _rank(["wait", "leave"])),
    (r"drain\.overdue", _rank(["escalate", "hold", "uncordon"])),
    (r"drain\.replaced\.otherwise", _rank(["hold", "warn"])),
    (r"drain\.replaced\.within", _less),
    (r"timing\.(evidence_max_age|stale_sample)", _more),
    (r"timing\.(clear|watch|boot_grace)", _less),
    (r"validation\.operator\.mode", _rank(["required", "auto", "off"])),
    (r"validation\.(bandwidth|counters\.[^.]+)\.is_required", _less),
    (r"validation\.bandwidth\.floors\.[^.]+\.(all_reduce|h2d|d2h|p2p)", _less),
    (r"validation\.diag_tests\.\d+|validation\.counters", _members(-1)),
    (r"approvals\.approvers", _members(1)),
    (r"approvals\.gang_gpus", _more),
    (r"approvals\.(ask_before|tiers)", _members(-1)),
    (r"approvals\.ledger_roles(\..*)?", _members(1)),
    (r"approvals\.annotation_returns", _more),
    (r"expected_gpus\.[^.]+", _more),
)
