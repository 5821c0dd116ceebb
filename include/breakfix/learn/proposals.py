"""What should change in the policy, and why; and the overlay that a person may paste. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import yaml

from breakfix.learn.tallies import ClassTally, SignalTally
from breakfix.model import DISRUPTIVE, SignalMode
from breakfix.policy import Bar, Policy

_NEXT = {"recommend": "approve", "approve": "auto"}
_BACK = {"auto": "approve", "approve": "recommend"}
#: No count of labels makes a signal certain, or says that it is nothing at all.
_LEAST, _MOST = 0.05, 0.99


class ProposalKind(StrEnum):
    """What a person is asked to do."""

    DEMOTE = "demote"  # a class that was wrong too often
    GRADUATE = "graduate"  # a class that has earned its next mode
    REWEIGH = "reweigh"  # a signal whose weight is not what came true


@dataclass(frozen=True, slots=True)
class Proposal:
    """One change; `path` is where in the policy: ("classes", "gsp", "mode")."""

    kind: ProposalKind
    path: tuple[str, ...]
    before: str | float
    after: str | float
    why: str


def propose(
    classes: Sequence[ClassTally], signals: Sequence[SignalTally], policy: Policy
) -> tuple[Proposal, ...]:
    """All proposals, the demotions first. A class is never both demoted and graduated."""
    made: list[Proposal] = []
    for tally in classes:
        proposal = _demotion(tally, policy) or _graduation(tally, policy)
        if proposal is not None:
            made.append(proposal)
    made += _by_path(p for s in signals for p in _reweighings(s, policy))
    order = list(ProposalKind)
    return tuple(sorted(made, key=lambda p: (order.index(p.kind), p.path)))


def _demotion(tally: ClassTally, policy: Policy) -> Proposal | None:
    """Enough labels, and fewer of them right than its mode bears."""
    bars = policy.learning.demote
    bar = {"auto": bars.auto, "approve": bars.approve}.get(tally.mode)
    share = tally.precision.share
    if bar is None or share is None:
        return None
    if tally.precision.total < bar.labels or share >= bar.precision:
        return None
    why = f"{_counted(tally)}, below the {bar.precision:.2f} that `{tally.mode}` must keep"
    return _of_class(ProposalKind.DEMOTE, tally, _BACK[tally.mode], why)


def _graduation(tally: ClassTally, policy: Policy) -> Proposal | None:
    """Enough labels, and even the low end of the interval is good enough. Never from `off`."""
    bars = policy.learning.graduate
    bar: Bar | None = {"recommend": bars.approve, "approve": bars.auto}.get(tally.mode)
    if bar is None or not DISRUPTIVE.intersection(tally.ladder):
        return None
    if tally.precision.total < bar.labels or tally.precision.low < bar.precision:
        return None
    to = _NEXT[tally.mode]
    why = f"{_counted(tally)}; `{to}` asks for at least {bar.precision:.2f} at the low end"
    return _of_class(ProposalKind.GRADUATE, tally, to, why)


def _of_class(kind: ProposalKind, tally: ClassTally, to: str, why: str) -> Proposal:
    return Proposal(kind, ("classes", tally.failure_class.value, "mode"), tally.mode, to, why)


def _counted(tally: ClassTally) -> str:
    p = tally.precision
    return f"{p.right} of {p.total} right ({p.low:.2f} to {p.high:.2f})"


def _reweighings(tally: SignalTally, policy: Policy) -> Iterator[Proposal]:
    """Too heavy: fewer were real, even with others' help, than it says alone. Too light: more were,
    with no other group to help.
    """
    weight, least = tally.weight, policy.learning.reweigh_labels
    if weight is None or tally.mode in {SignalMode.NEVER, ""}:
        return
    every, alone = tally.precision, tally.alone
    if every.total >= least and weight > every.high:
        chosen, word = every, "heavier"
    elif alone.total >= least and weight < alone.low:
        chosen, word = alone, "lighter"
    else:
        return
    after = round(min(max(chosen.right / chosen.total, _LEAST), _MOST), 2)
    if after == weight:
        return
    why = (
        f"{chosen.right} of {chosen.total} were real ({chosen.low:.2f} to {chosen.high:.2f}): it is"
        f" {word} than that"
    )
    path = ("xids", tally.xid) if tally.is_xid_rule else ("signals", tally.signal)
    yield Proposal(ProposalKind.REWEIGH, (*path, "weight"), weight, after, why)


def _by_path(proposals: Iterable[Proposal]) -> list[Proposal]:
    """One proposal a number: an XID that several signals report has one weight."""
    kept: dict[tuple[str, ...], Proposal] = {}
    for proposal in proposals:
        kept.setdefault(proposal.path, proposal)
    return list(kept.values())


def overlay_of(proposals: Sequence[Proposal]) -> str:
    """The proposals as YAML to paste into the site's overlay; empty when there is none."""
    overlay: dict[str, Any] = {}
    for p in proposals:
        part, name, key = p.path
        if part == "signals":
            overlay.setdefault(part, []).append({"name": name, key: p.after})
        else:
            number: str | int = int(name) if part == "xids" else name
            overlay.setdefault(part, {})[number] = {key: p.after}
    return yaml.safe_dump(overlay, sort_keys=False) if overlay else ""
