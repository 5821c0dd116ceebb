"""The rows of the report: one a failure class, one a signal."""

from __future__ import annotations

from dataclasses import dataclass

from breakfix.learn.statistics import Share
from breakfix.model import Action, FailureClass


@dataclass(frozen=True, slots=True)
class ClassTally:
    """One failure class. `precision` is over what takes nodes out, `suspicions` over the rest.

    `recommended`: where policy only recommends; of these people did the same (`advice_agreed`),
    said noise (`advice_refused`), or nothing.
    """

    failure_class: FailureClass
    mode: str
    ladder: tuple[Action, ...]
    cases: int
    recommended: int
    suspected: int
    known: int
    unlabelled: int
    by_person: int
    precision: Share
    suspicions: Share
    overrides: int
    false_quarantines: int
    advice_agreed: int
    advice_refused: int
    returned: int
    return_median_s: float | None
    return_longest_s: float | None


@dataclass(frozen=True, slots=True)
class SignalTally:
    """One signal, or one XID of it. `weight` is None where policy does not know it any more."""

    signal: str
    xid: str
    mode: str
    weight: float | None
    is_xid_rule: bool  # the weight stands in `xids`, not at the signal
    seen: int
    precision: Share
    alone: Share
