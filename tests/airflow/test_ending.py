"""When a run is red, and what it says then."""

from __future__ import annotations

import pytest

from breakfix_airflow.ending import complain

pytestmark = pytest.mark.airflow

END = "settle_run"
GREEN = {"begin": "success", "drain": "success", "reset_gpu": "skipped", END: "running"}


@pytest.mark.parametrize(
    ("states", "went", "complaint"),
    [
        pytest.param(GREEN, {"begin": "drain", "drain": END}, "", id="a road to its end is green"),
        pytest.param(
            {**GREEN, "drain": "failed"}, {"begin": "drain"}, "failed: drain", id="a failed stage"
        ),
        pytest.param(
            {**GREEN, "drain": "upstream_failed"},
            {"begin": "drain"},
            "never ran: drain",
            id="a stage that never ran",
        ),
        pytest.param(
            GREEN,
            {"begin": "drain", "drain": ""},
            "drain was marked success by hand",
            id="a stage that somebody marked",
        ),
        pytest.param(
            GREEN,
            {"begin": "drain", "drain": "reset_gpu"},
            "drain sent the case to reset_gpu, which was skipped",
            id="a road that broke off",
        ),
        pytest.param(
            {"begin": "success", "approve_repair": "failed", "settle_repair": "success"},
            {"begin": "approve_repair", "settle_repair": END},
            "",
            id="a question that was marked failed and settled",
        ),
        pytest.param(
            {"begin": "success", "approve_repair": "failed", "settle_repair": "failed"},
            {"begin": "approve_repair"},
            "failed: settle_repair",
            id="a question that was lost",
        ),
        pytest.param(
            {"begin": "success", "approve_repair": "skipped", "settle_repair": "success"},
            {"begin": "approve_repair", "approve_repair": "", "settle_repair": END},
            "",
            id="a question that had expired before it was asked",
        ),
    ],
)
def test_a_run_is_red_when_a_stage_failed_or_the_road_broke_off(states, went, complaint):
    said = complain(states, went, END)
    assert said.startswith(complaint)
    assert bool(said) == bool(complaint)
