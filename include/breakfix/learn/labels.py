"""Was it real? What a person said of a case, or else what its end lets one guess. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from breakfix.model import Action, Case, CaseEnd, FailureClass, Label, Labelling, NodeState


class LabelSource(StrEnum):
    """Where a label comes from; each is worth less than the one before it."""

    PERSON = "person"  # somebody said so
    OUTCOME = "outcome"  # what became of the node says so
    LIKELY = "likely"  # people's acts let one guess so
    NONE = "none"  # nothing is known


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known of an episode. `failure_class`: what it was, where a person knows better."""

    label: Label | None
    source: LabelSource
    why: str
    failure_class: FailureClass | None = None


def truth_of(said: Labelling) -> Truth:
    """What a person said."""
    why = f"{said.actor} said so" + (f": {said.note}" if said.note else "")
    return Truth(said.label, LabelSource.PERSON, why, said.failure_class)


def truth_of_case(case: Case, said: Labelling | None) -> Truth:
    """A person's word wins; without one the first row of the table that fits the case's end."""
    if said is not None:
        return truth_of(said)
    return next(row.truth for row in TABLE if row.fits(case))


@dataclass(frozen=True, slots=True)
class Row:
    """One way for a case to end, and what that says of the fault it was opened for."""

    fits: Callable[[Case], bool]
    truth: Truth


def is_by_hand(case: Case) -> bool:
    """A person asked for it: there was no verdict that could be right or wrong."""
    return bool(case.detail.get("is_by_hand")) or case.action is Action.DRAIN_ONLY


def _is_repaired(case: Case) -> bool:
    return case.repaired_at is not None


def _was_given_over(case: Case) -> bool:
    """Another owner came, or an exclusion: no word on the fault."""
    return bool(case.detail.get("ending", {}).get("releases"))


def _was_aborted_under_repair(case: Case) -> bool:
    return bool(case.detail.get("ending", {}).get("end") == CaseEnd.ESCALATED)


def _is_escalated(case: Case) -> bool:
    """Also one that a person has resolved since: the state says how far the case came."""
    return case.state is NodeState.ESCALATED


def _unknown(why: str) -> Truth:
    return Truth(None, LabelSource.NONE, why)


_REAL, _NOISE = Label.REAL, Label.NOISE
_OUTCOME, _LIKELY = LabelSource.OUTCOME, LabelSource.LIKELY

#: Read from the top; the last row fits everything.
TABLE: tuple[Row, ...] = (
    Row(lambda c: c.is_open, _unknown("the case is open")),
    Row(is_by_hand, _unknown("a person asked for it")),
    Row(lambda c: c.end is CaseEnd.NODE_GONE and not _is_escalated(c), _unknown("node is gone")),
    Row(_was_aborted_under_repair, _unknown("a person stopped the repair")),
    Row(
        lambda c: _is_escalated(c) and c.action is Action.HOLD_FOR_HARDWARE,
        Truth(_REAL, _OUTCOME, "held for hardware, and nobody took it back before that"),
    ),
    Row(
        lambda c: _is_escalated(c) and _is_repaired(c),
        Truth(_REAL, _OUTCOME, "a repair was done and the node did not pass validation"),
    ),
    Row(_is_escalated, _unknown("it escalated before anything was repaired or found")),
    Row(
        lambda c: c.end is CaseEnd.RETURNED and _is_repaired(c),
        Truth(_REAL, _OUTCOME, "repaired, validated, and healthy through the watch"),
    ),
    Row(
        lambda c: c.end is CaseEnd.RETURNED,
        Truth(_NOISE, _LIKELY, "validation found nothing wrong, and no repair was needed"),
    ),
    Row(_was_given_over, _unknown("the node was given over to another owner")),
    Row(_is_repaired, _unknown("a person ended it after the repair")),
    Row(
        lambda c: c.end is CaseEnd.OVERRIDDEN,
        Truth(_NOISE, _LIKELY, "a person took the node back before any repair"),
    ),
    Row(
        lambda c: c.end is CaseEnd.ABORTED,
        Truth(_NOISE, _LIKELY, "it was aborted, or its reason was gone, before any repair"),
    ),
    Row(lambda _: True, _unknown("nothing is known of how it ended")),
)
