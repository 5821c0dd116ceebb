"""What a replay leaves: each automation's word about each node in each sweep. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from breakfix.model import Action, FailureClass, NodeState, RefusalReason
from breakfix.replay.trace import Trace

OURS = "breakfix"


@dataclass(frozen=True, slots=True)
class Call:
    """One automation's word about one node in one sweep. `at`: seconds since the first sweep."""

    trace: str
    at: float
    node: str
    failure_class: FailureClass | None
    confidence: float
    is_disruptive: bool
    action: Action = Action.NONE
    state: NodeState = NodeState.SUSPECT
    refusal: RefusalReason | None = None
    reason: str = ""
    signals: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Replayed:
    """One trace and what was said of it. Nodes about which nothing was said are left out."""

    trace: Trace
    calls: Mapping[str, tuple[Call, ...]]  # automation -> its calls
    incidents: frozenset[str] = frozenset()  # scopes, over all sweeps
    spoke: frozenset[str] = frozenset()  # signals that had a reading
    warnings: tuple[str, ...] = ()
    seconds: float = field(default=0.0, compare=False)
