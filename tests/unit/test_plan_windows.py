"""The calendar: when nodes may be taken out, on the clock on the wall, and when it opens again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from breakfix.errors import SettingsError
from breakfix.model import RefusalReason
from breakfix.plan.windows import closed, opening
from breakfix.policy import parse_policy
from breakfix.policy_limits import DAYS, Window
from breakfix.wiring import default_policy_text
from tests.fakes_cluster import make_node
from tests.unit.plan_world import NOW, plan, policy, said

BERLIN = "Europe/Berlin"


def window(kind="allowed", **fields):
    return Window.model_validate({"kind": kind, **fields})


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


NIGHT = window(days=["mon", "tue"], **{"from": "22:00", "to": "04:00"}, time_zone=BERLIN)
WORK = window("blocked", days=list(DAYS[:5]), **{"from": "08:00", "to": "18:00"}, time_zone=BERLIN)


@pytest.mark.parametrize(
    ("windows", "moment", "opens"),
    [
        pytest.param([], "2026-06-01T12:00", "open", id="no window: always"),
        pytest.param([NIGHT], "2026-06-01T20:00", "open", id="a Monday at 22:00 in Berlin"),
        pytest.param([NIGHT], "2026-06-01T19:59", "2026-06-01T20:00", id="a minute before"),
        pytest.param([NIGHT], "2026-06-02T01:59", "open", id="after midnight it is still Monday's"),
        pytest.param([NIGHT], "2026-06-02T02:00", "2026-06-02T20:00", id="its end is outside"),
        pytest.param([NIGHT], "2026-06-01T00:30", "2026-06-01T20:00", id="Sunday's night is none"),
        pytest.param([NIGHT], "2026-06-03T12:00", "2026-06-08T20:00", id="next week"),
        pytest.param([NIGHT], "2026-01-05T20:30", "2026-01-05T21:00", id="winter time"),
        pytest.param([WORK], "2026-06-01T06:00", "2026-06-01T16:00", id="blocked at work"),
        pytest.param([WORK], "2026-06-01T16:00", "open", id="and free after it"),
        pytest.param([WORK], "2026-06-06T09:00", "open", id="a Saturday"),
        pytest.param([NIGHT, WORK], "2026-06-01T20:00", "open", id="allowed, not blocked"),
        pytest.param(
            [window(), WORK], "2026-06-01T12:00", "2026-06-01T16:00", id="a blocked one wins"
        ),
        pytest.param(
            [window("blocked"), window()], "2026-06-01T12:00", None, id="blocked for ever: never"
        ),
        pytest.param(
            [window("blocked", first_day="2026-12-20", last_day="2027-01-03")],
            "2026-12-24T12:00",
            "2027-01-04T00:00",
            id="a freeze with dates",
        ),
        pytest.param(
            [window("blocked", first_day="2026-12-20", last_day="2027-01-03")],
            "2026-12-19T23:59",
            "open",
            id="the day before it",
        ),
        pytest.param(
            [window(first_day="2027-03-01")],
            "2026-12-01T12:00",
            "2027-03-01T00:00",
            id="a window months away",
        ),
    ],
)
def test_when_it_is_open_and_when_it_opens(windows, moment, opens):
    found = closed(windows, at(moment))
    if opens == "open":
        assert found is None
        return
    assert found.opens_at == (at(opens) if opens else None)
    assert (f"{at(opens):%Y-%m-%d %H:%M} UTC" if opens else "no year") in found.text


@pytest.mark.parametrize(
    ("made", "moment", "is_open"),
    [
        # 2026-03-29 in Berlin: 02:00 becomes 03:00, which is 01:00 UTC
        pytest.param(("02:30", "05:00"), "2026-03-29T00:59", False, id="before the gap"),
        pytest.param(("02:30", "05:00"), "2026-03-29T01:00", True, id="a start in the gap is then"),
        pytest.param(("01:00", "02:30"), "2026-03-29T00:30", True, id="an end in the gap: before"),
        pytest.param(("01:00", "02:30"), "2026-03-29T01:00", False, id="and it is over after it"),
        # 2026-10-25 in Berlin: 03:00 becomes 02:00, 02:30 is at 00:30 and at 01:30 UTC
        pytest.param(("02:30", "05:00"), "2026-10-25T00:30", True, id="begins the first time"),
        pytest.param(("01:00", "02:30"), "2026-10-25T00:29", True, id="allowed until the first"),
        pytest.param(("01:00", "02:30"), "2026-10-25T01:00", False, id="and not the second time"),
    ],
)
def test_where_the_clock_is_put_forward_or_back(made, moment, is_open):
    one = window(**{"from": made[0], "to": made[1]}, time_zone=BERLIN)
    assert (closed([one], at(moment)) is None) is is_open


def test_a_blocked_window_ends_the_second_time_that_the_clock_shows_it():
    one = window("blocked", **{"from": "01:00", "to": "02:30"}, time_zone=BERLIN)
    found = closed([one], at("2026-10-25T01:29"))
    assert found.opens_at == at("2026-10-25T01:30")


def test_a_window_that_opens_in_the_gap_says_so_to_the_second():
    one = window(days=["sun"], **{"from": "02:30", "to": "05:00"}, time_zone=BERLIN)
    assert opening([one], at("2026-03-28T12:00")) == at("2026-03-29T01:00")


times = st.integers(0, 23).map(lambda h: f"{h:02}:00")
windows_of_a_week = st.builds(
    lambda kind, days, start, end, zone: window(
        kind, days=sorted(days, key=DAYS.index), **{"from": start, "to": end}, time_zone=zone
    ),
    st.sampled_from(["allowed", "blocked"]),
    st.sets(st.sampled_from(DAYS), min_size=1),
    times,
    times,
    st.sampled_from(["UTC", BERLIN, "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"]),
)


@settings(max_examples=60)
@given(st.lists(windows_of_a_week, max_size=3), st.integers(0, 366 * 48))
def test_it_is_closed_until_the_moment_that_it_names_and_open_then(windows, half_hours):
    now = at("2026-01-01T00:10") + timedelta(minutes=30 * half_hours)
    found = closed(windows, now)
    if found is None or found.opens_at is None:
        return
    assert found.opens_at > now
    assert closed(windows, found.opens_at) is None
    steps = int((found.opens_at - now).total_seconds() // 1800)
    probes = [now + timedelta(minutes=30 * i) for i in range(0, steps, max(1, steps // 12))]
    assert all(closed(windows, t) is not None for t in probes)


# --------------------------------------------------------------------------- in the policy


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("{kind: allowed, time_zone: Mars/Olympus}", "no time zone", id="a zone"),
        pytest.param("{kind: allowed, from: '25:00'}", "no time of day", id="an hour"),
        pytest.param("{kind: allowed, to: noon}", "no time of day", id="a word"),
        pytest.param("{kind: allowed, days: []}", "days", id="no day"),
        pytest.param("{kind: sometimes}", "kind", id="another kind"),
        pytest.param(
            "{kind: blocked, first_day: 2026-02-02, last_day: 2026-01-01}", "before", id="dates"
        ),
    ],
)
def test_a_window_that_makes_no_sense_is_refused(text, says):
    with pytest.raises(SettingsError, match=says):
        parse_policy(default_policy_text(), f"limits: {{windows: [{text}]}}")


def test_times_may_be_written_without_quotes():
    made = parse_policy(
        default_policy_text(), "limits: {windows: [{kind: allowed, from: 22:00, to: 04:30}]}"
    )
    assert (made.limits.windows[0].start, made.limits.windows[0].end) == ("22:00", "04:30")


def test_windows_are_of_nodes_by_scope_and_labels():
    closed_now = {"kind": "blocked", "reason": "customers"}
    rules = policy(windows=[closed_now | {"scope": {"rack": "r0"}, "labels": {"team": "a"}}])
    mine = make_node("n0", rack="r0", labels={"team": "a"})
    others = [make_node(f"n{i}", rack=f"r{i}") for i in range(1, 4)]
    made = plan(nodes=[mine, *others], rules=rules)
    assert said(made) == RefusalReason.WINDOW
    assert "customers" in made.refusals[0].text
    for other in ({"rack": "r9", "labels": {"team": "a"}}, {"rack": "r0", "labels": {}}):
        assert said(plan(nodes=[make_node("n0", **other), *others], rules=rules)) == "admitted"
    assert NOW.weekday() == 4
