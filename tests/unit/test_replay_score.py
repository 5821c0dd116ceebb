"""Scores from calls and labels, worked out by hand; and what people and programs get to see."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from breakfix.errors import MetricsError, SettingsError
from breakfix.model import Action, FailureClass
from breakfix.ports import QueryResult, Sample
from breakfix.replay.baselines import by_fatal_events, by_thresholds
from breakfix.replay.caching import CachingMetrics
from breakfix.replay.floors import FLOORS, check_floors
from breakfix.replay.load import make_trace
from breakfix.replay.outcome import OURS, Call, Replayed
from breakfix.replay.publish import Publication, numbers, publication
from breakfix.replay.run import remember
from breakfix.replay.score import poisson_interval, rate, reliability, score
from breakfix.replay.trace import Trace
from tests.fakes_metrics import FakeMetrics
from tests.observations import POLICY, judged, observation, reading, ready_node, xid

C = FailureClass
NOW = datetime(2026, 1, 5, tzinfo=UTC)
OTHERS = ("thresholds", "fatal_events")


def trace(kind: str = "hardware", name: str = "t", **parts: Any) -> Trace:
    fleet = [{"prefix": "n-", "count": 10, "gpus": 1}]
    whole = {"name": name, "about": "x", "kind": kind, "fleet": fleet, "length": "1h", **parts}
    return make_trace(whole)


def fault(node: str = "n-001", start: Any = "10m", failure_class: str = "gpu_off_bus", **more: Any):
    return {"node": node, "failure_class": failure_class, "from": start, **more}


def call(
    at: float,
    node: str = "n-001",
    failure_class: FailureClass | None = C.GPU_OFF_BUS,
    confidence: float = 0.95,
    *,
    is_disruptive: bool = True,
) -> Call:
    action = Action.REBOOT_NODE if is_disruptive else Action.REVIEW
    return Call(
        "t", at, node, failure_class, confidence, is_disruptive, action=action, reason="because"
    )


def replayed(of: Trace, *calls: Call, **more: Any) -> Replayed:
    return Replayed(of, {OURS: calls, **dict.fromkeys(OTHERS, ())}, **more)


def test_a_fault_found_in_time_is_right_and_quick():
    made = score([replayed(trace(truth=[fault()]), call(720), call(840))])
    assert made.precision_episodes.value == 1
    assert made.precision_calls == type(made.recall)(2, 2)
    assert made.recall.value == 1
    assert (made.median_delay, made.p95_delay) == (1.0, 1.0)
    assert made.right_class.value == 1
    assert dict(made.confusion) == {("gpu_off_bus", "gpu_off_bus"): 1}
    assert made.wrongs == ()


@pytest.mark.parametrize(
    ("calls", "recall", "onset", "wrong"),
    [
        pytest.param([call(1140)], 1, 0, None, id="two sweeps after it was detectable"),
        pytest.param([call(1260)], 0, 0, "missed", id="three sweeps after it"),
        pytest.param([], 0, 0, "missed", id="never"),
        pytest.param([call(720)], 1, 1, None, id="before it had to be detectable"),
        pytest.param([call(720, is_disruptive=False)], 0, 0, "missed", id="only a review"),
    ],
)
def test_time_counts_from_what_can_be_detected(calls, recall, onset, wrong):
    made = score([replayed(trace(truth=[fault(detectable_at="15m")]), *calls)])
    assert (made.recall.value, made.recall_onset.value) == (recall, onset)
    assert [w.what for w in made.wrongs] == ([wrong] if wrong else [])


@pytest.mark.parametrize(
    ("truth", "at", "is_right"),
    [
        pytest.param([], 720, False, id="no fault at all"),
        pytest.param([fault()], 480, False, id="before the fault"),
        pytest.param([fault(to="15m")], 1080, True, id="while telemetry still forgets"),
        pytest.param([fault(to="15m")], 1260, False, id="long after the fault"),
        pytest.param([fault(is_hardware=False)], 720, False, id="a fault that asks for no repair"),
        pytest.param([fault("n-002")], 720, False, id="another node's fault"),
    ],
)
def test_an_action_is_right_only_while_a_fault_asks_for_it(truth, at, is_right):
    made = score([replayed(trace(truth=truth), call(at))])
    assert made.precision_episodes.value == is_right
    assert ("wrong_action" in {w.what for w in made.wrongs}) is not is_right


def test_an_episode_is_judged_by_its_first_call():
    early = replayed(trace(truth=[fault()]), call(480), call(720))
    assert score([early]).precision_episodes.value == 0
    assert score([early]).precision_calls.value == 0.5


def test_a_wrong_class_costs_no_precision_but_is_counted():
    done = replayed(trace(truth=[fault(also=["gpu_missing"])]), call(720, failure_class=C.GSP))
    made = score([done])
    assert made.precision_episodes.value == 1
    assert made.right_class.value == 0
    assert dict(made.confusion) == {("gpu_off_bus", "gsp"): 1}
    assert [w.what for w in made.wrongs] == ["wrong_class"]
    as_right = replayed(
        trace(truth=[fault(also=["gpu_missing"])]), call(720, failure_class=C.GPU_MISSING)
    )
    assert score([as_right]).right_class.value == 1


def test_optional_faults_and_those_too_late_in_the_trace_are_not_asked_for():
    optional = replayed(trace(truth=[fault(is_optional=True)]))
    late = replayed(trace(truth=[fault(start="58m")]))
    assert score([optional, late]).recall.total == 0


@pytest.mark.parametrize(
    ("parts", "hits"),
    [
        pytest.param({"kind": "common_cause"}, 1, id="nothing may be taken out in a crowd"),
        pytest.param(
            {"kind": "common_cause", "truth": [fault()]}, 0, id="but a real fault inside it may"
        ),
        pytest.param(
            {"kind": "never_alone", "expect": {"disruptive": ["n-001"]}}, 0, id="or what is allowed"
        ),
        pytest.param({"expect": {"disruptive": "never"}}, 1, id="a trace may ask for it itself"),
    ],
)
def test_never_means_never(parts, hits):
    made = score([replayed(trace(**parts), call(720))])
    assert (made.never.hits, made.never.total) == (hits, 1)


def test_false_quarantines_are_counted_over_noise_alone():
    noise = replayed(trace("noise", length="1d"), call(720), call(840), call(720, "n-002"))
    quiet = replayed(trace("noise", name="q", length="1d"))
    other = replayed(trace("hardware", name="o", length="1d"), call(720))
    made = score([noise, quiet, other]).noise
    assert (made.events, made.node_days, made.rate) == (2, 20, 1000)


@pytest.mark.parametrize(
    ("events", "low", "high"),
    [(0, 0.0, 3.688879), (1, 0.025318, 5.571643), (5, 1.623486, 11.668332)],
)
def test_the_poisson_interval_is_the_exact_one(events, low, high):
    assert poisson_interval(events) == pytest.approx((low, high), abs=1e-6)
    assert rate(events, 20_000).high == pytest.approx(high / 2, abs=1e-6)


def test_calibration_is_the_distance_of_what_is_said_from_what_is_true():
    claims = [(0.95, True)] * 9 + [(0.95, False)] + [(0.45, True)] * 5 + [(0.45, False)] * 5
    made = reliability(claims)
    assert [(b.low, b.claims, b.share_right) for b in made.bins] == [(0.4, 10, 0.5), (0.9, 10, 0.9)]
    assert made.ece == pytest.approx((0.05 + 0.05) / 2)
    assert reliability([(1.0, True)]).bins[0].high == 1.0
    assert reliability([]).ece is None


def test_a_claim_is_true_while_its_class_is():
    done = replayed(
        trace(truth=[fault(failure_class="thermal", is_hardware=False)]),
        call(720, failure_class=C.THERMAL, confidence=0.6, is_disruptive=False),
        call(480, failure_class=C.THERMAL, confidence=0.6, is_disruptive=False),
        call(720, failure_class=C.TELEMETRY_LOST, confidence=0.0, is_disruptive=False),
    )
    made = score([done])
    assert (made.reliability.claims, made.reliability.bins[0].share_right) == (2, 0.5)
    assert made.reliability_disruptive.claims == 0


def test_expectations_that_did_not_come_are_named():
    expect = {
        "incidents": ["rack=r1", "rack=r2"],
        "telemetry_lost": ["n-001", "n-002"],
        "speak": ["xid_last"],
        "silent": ["ecc_dbe"],
    }
    lost = call(0, failure_class=C.TELEMETRY_LOST, is_disruptive=False)
    done = replayed(
        trace(expect=expect), lost, incidents=frozenset({"rack=r1"}), spoke=frozenset({"ecc_dbe"})
    )
    made = score([done])
    assert (made.expectations.hits, made.expectations.total) == (2, 6)
    assert {w.truth for w in made.wrongs} == {
        "incident rack=r2", "telemetry of n-002 lost", "xid_last speaks", "ecc_dbe is silent",
    }  # fmt: skip
    none = replayed(trace(expect={"incidents": []}), incidents=frozenset({"fleet"}))
    assert [w.truth for w in score([none]).wrongs] == ["no incident"]


# ------------------------------------------------------------------ floors


def test_floors_are_kept_or_not_and_nothing_measured_breaks_none():
    good = score([replayed(trace(truth=[fault()]), call(720))])
    bad = score([replayed(trace("never_alone"), call(720))])
    assert all(f.is_kept for f in check_floors("precision=0.99,recall=0.95,never=0", good))
    assert [f.name for f in check_floors(FLOORS, bad) if not f.is_kept] == [
        "precision", "ece", "never",
    ]  # fmt: skip
    assert check_floors("false_quarantines=1", good)[0].value is None


@pytest.mark.parametrize("text", ["speed=1", "precision", "precision=high"])
def test_a_floor_that_is_not_understood_is_refused(text):
    with pytest.raises(SettingsError, match="--require"):
        check_floors(text, score([]))


# ------------------------------------------------------------------ the two others


def test_plain_thresholds_act_on_any_disruptive_finding():
    seen = observation(
        [reading("pcie_replay", 50.0), xid(31, node="gpu-2"), xid(79, node="gpu-3")],
        [ready_node(f"gpu-{i}") for i in (1, 2, 3, 4)],
    )
    assert dict(by_thresholds(seen, POLICY)) == {
        "gpu-1": C.PCIE_DEGRADED, "gpu-3": C.GPU_OFF_BUS,
    }  # fmt: skip


def test_fatal_events_act_on_codes_health_and_readiness():
    nodes = [ready_node("gpu-1"), ready_node("gpu-2"), ready_node("gpu-3", is_ready=False)]
    nodes[2] = ready_node("gpu-3", conditions=())
    seen = observation([], [*nodes, ready_node("gpu-4")])

    def answer(query: str) -> QueryResult:
        if "DCGM_FI_DEV_XID_ERRORS" in query:
            said = {"gpu-1": "79", "gpu-4": "31"}
            return QueryResult(
                tuple(Sample({"Hostname": n, "err_code": c}, float(c)) for n, c in said.items())
            )
        if "HEALTH" in query:
            labels = {"Hostname": "gpu-2", "health_error_code": "DCGM_FR_NVLINK_DOWN"}
            return QueryResult((Sample(labels, 20.0),))
        return QueryResult(())

    assert dict(by_fatal_events(FakeMetrics(default=answer), seen, POLICY, at=NOW)) == {
        "gpu-1": C.GPU_OFF_BUS, "gpu-2": C.NVLINK_DOWN, "gpu-3": C.NODE_NOT_READY,
    }  # fmt: skip


# ------------------------------------------------------------------ between sweeps


def test_a_node_stays_in_its_state_since_it_got_into_it():
    first = remember({}, judged(xid(79), nodes=[ready_node()]))
    again = remember(first, judged(xid(79), nodes=[ready_node()]))
    assert again["gpu-1"] is first["gpu-1"]
    assert first["gpu-1"].state == "suspect"
    assert remember(again, judged(nodes=[ready_node()]))["gpu-1"].state == "healthy"


def test_no_query_about_the_past_is_asked_twice():
    asked = FakeMetrics(answers={"bad": "broken"})
    cached = CachingMetrics(asked)
    cached.query_many({"a": "up", "b": "bad"}, at=NOW)
    answers = cached.query_many({"a": "up", "b": "bad"}, at=NOW)
    assert answers["b"] == "broken"
    assert asked.asked.count("up") == 1
    assert asked.asked.count("bad") == 2
    cached.query("up", at=NOW.replace(hour=1))
    assert asked.asked.count("up") == 2
    with pytest.raises(MetricsError, match="broken"):
        cached.query("bad", at=NOW)


# ------------------------------------------------------------------ what is shown


def _all() -> list[Replayed]:
    return [
        replayed(trace(truth=[fault()]), call(720)),
        replayed(trace("common_cause", "crowd", seed=2), call(600)),
        replayed(trace("noise", "quiet", seed=3, length="1d")),
    ]


def test_the_page_has_every_part_and_says_where_we_are_wrong():
    done = _all()
    scores = [score(done, who) for who in (OURS, *OTHERS)]
    floors = check_floors(FLOORS, scores[0])
    page = publication(Publication("breakfix replay x", POLICY, done, scores, floors))
    assert headings(page) == [
        "Decisions: how often they are right", "The numbers", "Floors", "Is the confidence true?",
        "Which class for which", "Where we are wrong", "The two others",
    ]  # fmt: skip
    assert "3 traces (1 common_cause, 1 hardware, 1 noise)" in page
    assert "Seeds: 0, 2-3." in page
    assert "0.5000 (1/2)" in page
    assert "| crowd | n-001 | 600 s |" in page
    assert "**no**" in page


def test_text_from_traces_stays_data_on_the_page():
    hostile = call(720)
    bad = Call(**{**{k: getattr(hostile, k) for k in Call.__slots__}, "reason": "a|b\n# <b>x"})
    done = [replayed(trace("never_alone"), bad)]
    scores = [score(done, who) for who in (OURS, *OTHERS)]
    page = publication(Publication("x", POLICY, done, scores, []))
    assert "a\\|b # &lt;b>x" in page


def test_programs_get_the_same_numbers():
    done = _all()
    scores = [score(done, who) for who in (OURS, *OTHERS)]
    made = numbers(POLICY, done, scores, check_floors("precision=1", scores[0]))
    assert made["scores"][OURS]["precision_episodes"] == {"hits": 1, "total": 2, "value": 0.5}
    assert made["scores"][OURS]["wrongs"][0]["trace"] == "crowd"
    assert made["floors"] == [{"name": "precision", "limit": 1, "value": 0.5, "is_kept": False}]
    assert [t["name"] for t in made["traces"]] == ["t", "crowd", "quiet"]


def headings(page: str) -> list[str]:
    lines = [line for line in page.splitlines() if line.startswith(("# ", "## "))]
    return [line.lstrip("# ") for line in lines]


def test_the_published_page_was_made_by_this_code():
    page = (Path(__file__).resolve().parents[2] / "docs/decisions.md").read_text(encoding="utf-8")
    found = headings(page)
    made = publication(Publication("x", POLICY, [], [score([], w) for w in (OURS, *OTHERS)], []))
    assert found[:2] == headings(made)[:2]
    assert set(headings(made)) <= set(found)
    rows = [line.split("|")[1] for line in made.splitlines() if line.startswith("| ")]
    assert [r for r in rows if f"|{r}|" not in page] == []
    assert "breakfix replay" in page
