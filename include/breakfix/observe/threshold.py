"""One comparison, the same for readings from metrics and from Kubernetes."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping

from breakfix.policy import SignalRule

_OPS: Mapping[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "==": operator.eq,
    "!=": operator.ne,
}


def is_beyond(rule: SignalRule, value: float) -> bool:
    """Whether the value speaks by this rule, or may still speak where it clears later."""
    limit = rule.threshold if rule.clear_threshold is None else rule.clear_threshold
    return _OPS[rule.op](value, limit)
