"""How a case ended says what it was; a person's word wins."""

from __future__ import annotations

from dataclasses import replace

import pytest

from breakfix.learn import LabelSource, truth_of_case
from breakfix.model import Action, CaseEnd, FailureClass, Label, NodeState
from tests.unit.learn_world import NOW, a_case, ended, said

REPAIRED = {"repaired_at": NOW}
ESCALATED = {"state": NodeState.ESCALATED}
HOLD = {"action": Action.HOLD_FOR_HARDWARE}
REAL, NOISE = Label.REAL, Label.NOISE
OUTCOME, LIKELY, NONE = LabelSource.OUTCOME, LabelSource.LIKELY, LabelSource.NONE


@pytest.mark.parametrize(
    ("case", "label", "source"),
    [
        pytest.param(a_case(), None, NONE, id="a case that is open"),
        pytest.param(a_case(**REPAIRED), None, NONE, id="a repaired case under watch"),
        pytest.param(
            ended(CaseEnd.RETURNED, **REPAIRED), REAL, OUTCOME, id="repaired and stayed healthy"
        ),
        pytest.param(ended(CaseEnd.RETURNED), NOISE, LIKELY, id="nothing was found or repaired"),
        pytest.param(ended(CaseEnd.OVERRIDDEN), NOISE, LIKELY, id="taken back before a repair"),
        pytest.param(
            ended(CaseEnd.OVERRIDDEN, **REPAIRED), None, NONE, id="taken back after the repair"
        ),
        pytest.param(
            ended(CaseEnd.OVERRIDDEN, detail={"ending": {"releases": True}}),
            *(None, NONE),
            id="given over to a driver upgrade",
        ),
        pytest.param(ended(CaseEnd.ABORTED), NOISE, LIKELY, id="aborted before a repair"),
        pytest.param(ended(CaseEnd.ABORTED, **REPAIRED), None, NONE, id="aborted after it"),
        pytest.param(
            ended(CaseEnd.ESCALATED, **ESCALATED, **HOLD), REAL, OUTCOME, id="held for hardware"
        ),
        pytest.param(
            ended(CaseEnd.OVERRIDDEN, **ESCALATED, **HOLD),
            *(REAL, OUTCOME),
            id="held for hardware, replaced, and uncordoned by a person",
        ),
        pytest.param(
            ended(CaseEnd.NODE_GONE, **ESCALATED, **HOLD),
            *(REAL, OUTCOME),
            id="held for hardware, and the machine was taken away",
        ),
        pytest.param(
            ended(CaseEnd.ESCALATED, **ESCALATED, **REPAIRED),
            *(REAL, OUTCOME),
            id="repaired, and not fixed by that",
        ),
        pytest.param(
            ended(CaseEnd.ESCALATED, **ESCALATED), None, NONE, id="nobody approved the repair"
        ),
        pytest.param(
            ended(
                CaseEnd.ESCALATED,
                **ESCALATED,
                **REPAIRED,
                detail={"ending": {"end": "escalated", "actor": "cli:ann"}},
            ),
            *(None, NONE),
            id="a person stopped the repair",
        ),
        pytest.param(ended(CaseEnd.NODE_GONE), None, NONE, id="the node is gone"),
        pytest.param(
            ended(CaseEnd.ABORTED, action=Action.DRAIN_ONLY), None, NONE, id="a drain by hand"
        ),
        pytest.param(
            ended(CaseEnd.RETURNED, detail={"is_by_hand": True}), None, NONE, id="a case by hand"
        ),
    ],
)
def test_how_a_case_ended_is_a_label(case, label, source):
    truth = truth_of_case(case, None)
    assert (truth.label, truth.source) == (label, source)
    assert truth.why


@pytest.mark.parametrize("label", Label)
@pytest.mark.parametrize("end", [CaseEnd.RETURNED, CaseEnd.OVERRIDDEN, CaseEnd.NODE_GONE])
def test_what_a_person_says_wins_over_the_guess(label, end):
    word = replace(said(label), failure_class=FailureClass.FABRIC, note="cable")
    truth = truth_of_case(ended(end), word)
    assert (truth.label, truth.source) == (label, LabelSource.PERSON)
    assert truth.failure_class is FailureClass.FABRIC
    assert "cable" in truth.why
