"""The default policy, and what an overlay may say."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from importlib import resources
from typing import Any

import pytest
import yaml

from breakfix.errors import SettingsError
from breakfix.model import Action, FailureClass, SignalMode
from breakfix.policy import ClassRule, Policy, parse_duration, parse_policy
from breakfix.wiring import default_policy_text

POLICY = parse_policy(default_policy_text())


def catalogue() -> dict[int, dict[str, str]]:
    path = resources.files("breakfix").joinpath("data/xid_catalogue.csv")
    with path.open(encoding="utf-8", newline="") as file:
        return {int(row["xid"]): row for row in csv.DictReader(file)}


def overlaid(text: str) -> Policy:
    return parse_policy(default_policy_text(), text)


# ------------------------------------------------------------------ the default


@pytest.mark.parametrize("xid", [79, 48, 95, 64, 140])
def test_xids_that_vendor_and_monitors_call_fatal_may_act_alone(xid: int) -> None:
    rule = POLICY.xids[xid]
    assert rule.mode is SignalMode.ALONE
    assert rule.weight >= POLICY.class_rule(rule.failure_class).min_confidence


@pytest.mark.parametrize("xid", [74, 119, 120, 109, 63, 94, 92])
def test_xids_that_are_disputed_need_a_second_source(xid: int) -> None:
    assert POLICY.xids[xid].mode is SignalMode.CORROBORATE


@pytest.mark.parametrize("xid", [13, 31, 43, 68, 69])
def test_xids_of_applications_are_never_a_reason(xid: int) -> None:
    assert xid in POLICY.app_xids
    assert xid not in POLICY.xids


def test_xid_45_cleans_up_after_others_and_is_never_a_reason() -> None:
    rule = POLICY.xids[45]
    assert rule.mode is SignalMode.NEVER
    assert {79, 48, 95, 62, 119} <= set(rule.follows)
    assert set(rule.follows) <= set(POLICY.xids)


def test_application_xids_are_those_the_vendor_calls_so() -> None:
    for xid, row in catalogue().items():
        if row["immediate"] in {"RESTART_APP", "IGNORE"}:
            assert xid in POLICY.app_xids or POLICY.xids[xid].mode is SignalMode.CORROBORATE
        else:
            assert xid not in POLICY.app_xids


def test_every_xid_of_the_policy_is_in_the_catalogue() -> None:
    known = catalogue()
    assert set(POLICY.xids) | set(POLICY.app_xids) <= set(known)
    assert len(known) > 170
    assert all(row["source"] for row in known.values())


def test_one_signal_alone_acts_only_when_it_is_sure_enough() -> None:
    for rule in POLICY.signals:
        if rule.mode is SignalMode.ALONE:
            assert rule.weight >= POLICY.class_rule(rule.failure_class).min_confidence
        else:
            assert rule.weight < POLICY.class_rule(rule.failure_class).min_confidence


def test_nothing_disruptive_happens_without_a_persons_yes() -> None:
    assert all(c.mode != "auto" for c in POLICY.classes.values())
    assert POLICY.approvals.approvers == ()
    assert POLICY.approvals.ask_before == {"repair", "return"}


def test_every_class_has_a_rule_and_a_source() -> None:
    assert set(POLICY.classes) == set(FailureClass)
    assert all(rule.source for rule in POLICY.classes.values())


def test_every_signal_and_xid_has_a_source() -> None:
    assert all(s.source for s in POLICY.signals)
    assert all(x.source and x.text for x in POLICY.xids.values())


def test_views_of_the_same_xids_are_one_group() -> None:
    assert {s.group for s in POLICY.signals if s.is_xid} == {"xid"}


# ------------------------------------------------------------------ overlays


def test_an_overlay_changes_one_field_of_one_signal() -> None:
    changed = overlaid("signals: [{name: ecc_dbe, window: 1m}]")
    rule = next(s for s in changed.signals if s.name == "ecc_dbe")
    assert rule.window_s == 60
    assert rule.weight == 0.95
    assert len(changed.signals) == len(POLICY.signals)


def test_an_overlay_adds_a_signal() -> None:
    text = yaml.safe_dump(
        {
            "signals": [
                {
                    "name": "fans",
                    "query": "min by ($node) (fan_rpm)",
                    "coverage": "$seen(fan_rpm)",
                    "op": "<",
                    "threshold": 100,
                    "weight": 0.5,
                    "group": "fans",
                    "mode": "corroborate",
                    "kind": "state",
                    "failure_class": "thermal",
                    "text": "a fan turns at {value}",
                    "source": "site",
                }
            ]
        }
    )
    assert {s.name for s in overlaid(text).signals} - {s.name for s in POLICY.signals} == {"fans"}


def test_the_hash_is_of_what_holds_not_of_how_it_is_written() -> None:
    assert overlaid("# a comment\n").hash == POLICY.hash
    assert overlaid("drain: {poll: 5}").hash == POLICY.hash
    assert overlaid("drain: {poll: 6s}").hash != POLICY.hash


@pytest.mark.parametrize(
    ("overlay", "says"),
    [
        pytest.param("limits: {headroom: 1}", "headroom", id="a key that does not exist"),
        pytest.param("timing: {reboot: soon}", "write e.g. 90s", id="a duration that is none"),
        pytest.param("classes: {gpu_on_fire: {ladder: [review]}}", "gpu_on_fire", id="a class"),
        pytest.param("approvals: {ask_before: [lunch]}", "ask_before", id="a question"),
        pytest.param(
            "xids: {13: {failure_class: gsp, mode: alone, weight: 1, source: x}}",
            "13",
            id="an app XID",
        ),
        pytest.param("signals: [{name: ecc_dbe, coverage: ''}]", "coverage", id="no coverage"),
        pytest.param(
            "signals: [{name: not_ready, query: 'kubernetes:moon'}]", "kubernetes", id="a query"
        ),
        pytest.param("signals: [{name: ecc_dbe, query: 'm[$widow]'}]", "widow", id="a word"),
        pytest.param("signals: [{name: ecc_dbe, text: '{colour}'}]", "colour", id="a text"),
        pytest.param(
            "signals: [{name: ecc_dbe, query: 'max by ($node ('}]",
            r"query: no PromQL: \( is not closed",
            id="a query with an open bracket",
        ),
        pytest.param(
            "signals: [{name: ecc_dbe, coverage: '$seen(m))'}]",
            r"coverage: no PromQL: \) closes nothing",
            id="a coverage with a bracket too many",
        ),
        pytest.param(
            "signals: [{name: ecc_dbe, since_query: 'm{a=\"b}'}]",
            'a quote " is not closed',
            id="a query with an open quote",
        ),
        pytest.param(
            "signals: [{name: ecc_dbe, query: 'rate(m[$window)]'}]",
            r"\) closes nothing",
            id="a query with crossed brackets",
        ),
        pytest.param(
            "signals: [{name: ecc_dbe, query: 'm # mine'}]", "a comment", id="a comment at the end"
        ),
        pytest.param("facts: {rack: {query: 'm{'}}", "facts.rack.query: no PromQL", id="a fact"),
        pytest.param("facts: {rack: {query: '$widow'}}", "widow", id="a word of a fact"),
        pytest.param(
            "signals: [{name: ecc_dbe, threshold: .nan}]", "threshold: .* finite", id="no number"
        ),
        pytest.param(
            "signals: [{name: ecc_dbe, threshold: .inf}]", "threshold: .* finite", id="no end"
        ),
        pytest.param("timing: {watch: .inf}", "watch: .* finite", id="a duration without an end"),
        pytest.param("limits: {out: {rack: {share: .nan}}}", "share: .* finite", id="no share"),
        pytest.param("a: [", "not valid YAML", id="no YAML"),
        pytest.param("- a", "must be a map", id="a list"),
        pytest.param(
            "version: 2001-99-99",
            "the policy overlay: policy: not valid YAML: month",
            id="a day that is none",
        ),
        pytest.param("signals: [ecc_dbe]", "signals.0: each signal needs", id="no map of a signal"),
        pytest.param("signals: [{name: [a]}]", "signals.0: each signal needs", id="no text"),
        pytest.param(
            "signals: [{name: gpu_hot}, {name: ecc_dbe, weight: 0.9}, {name: ecc_dbe}]",
            "signals.2: ecc_dbe is in this list already",
            id="a signal twice",
        ),
        pytest.param(
            "limits:\n  out: {fleet: {share: 0.01}}\nversion: x\nlimits:\n  cooldown: 1m\n",
            "overlay:4:1: limits: is already in line 1.*put both into one",
            id="a section twice",
        ),
        pytest.param(
            "classes:\n  disk: {mode: off, mode: auto}",
            ":2:21: classes.disk.mode: is already",
            id="a key of a class twice",
        ),
        pytest.param(
            "signals:\n- name: ecc_dbe\n  weight: 0.9\n  weight: 0.1",
            ":4:3: signals.0.weight: is already in line 3",
            id="a key of a signal twice",
        ),
        pytest.param(
            'xids: {79: {weight: 0.9}, "79": {weight: 0.5}}',
            "xids.79: is already",
            id="an XID twice, once quoted",
        ),
    ],
)
def test_a_wrong_overlay_gets_one_clear_line(overlay: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says) as error:
        overlaid(overlay)
    assert "pydantic" not in str(error.value)


@pytest.mark.parametrize(
    "query",
    [
        pytest.param('m{a=~"[(]x{2}\\")"}', id="brackets in quotes"),
        pytest.param("m{a='\"'}", id="a quote in quotes"),
        pytest.param("m{a=`\\`}", id="text as it is"),
        pytest.param("m # it's (mine\n + n", id="a comment between"),
        pytest.param("topk by (a) (3, m @ end()) atan2 m", id="PromQL that is not known here"),
    ],
)
def test_a_query_is_not_refused_for_what_prometheus_takes(query: str) -> None:
    text = yaml.safe_dump({"signals": [{"name": "ecc_dbe", "query": query}]})
    changed = next(s for s in overlaid(text).signals if s.name == "ecc_dbe")
    assert changed.query == query


def test_all_that_is_said_twice_is_told_at_once() -> None:
    with pytest.raises(SettingsError) as error:
        overlaid("version: a\nversion: b\ndrain: {poll: 5s, poll: 6s}\n")
    assert all(f"the policy overlay:{place}: " in str(error.value) for place in ("2:1", "3:19"))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            "limits: {out: {fleet: &a {nodes: 1}, rack: {<<: *a}, pool: {<<: *a, nodes: 2}}}",
            id="one map merged into others",
        ),
        pytest.param("classes:\n  disk: {ladder: &r [review]}\n  gsp: {ladder: *r}", id="an alias"),
    ],
)
def test_what_yaml_itself_repeats_is_not_said_twice(text: str) -> None:
    assert overlaid(text).hash != POLICY.hash


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("xids: {79: {weight: 0.5}}", id="plain"),
        pytest.param("xids: {'79': {weight: 0.5}}", id="quoted"),
        pytest.param('{"xids": {"79": {"weight": 0.5}}}', id="JSON"),
    ],
)
def test_an_xid_is_overlaid_however_its_number_is_written(text: str) -> None:
    changed = overlaid(text)
    assert changed.xids[79] == POLICY.xids[79].model_copy(update={"weight": 0.5})
    assert changed.xids.keys() == POLICY.xids.keys()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("1.5h", 5400), ("7d", 604800), (5, 5), ("250ms", 0.25)],
)
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "-5s", "5 s", True, None, "1w"])
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("ladder", "attempt", "action"),
    [
        ((Action.RESET_GPU, Action.REBOOT_NODE), 1, Action.RESET_GPU),
        ((Action.RESET_GPU, Action.REBOOT_NODE), 2, Action.REBOOT_NODE),
        ((Action.RESET_GPU, Action.REBOOT_NODE), 3, Action.HOLD_FOR_HARDWARE),
        ((Action.REVIEW,), 5, Action.REVIEW),
    ],
)
def test_ladders_end_in_hardware_or_where_they_were(
    ladder: tuple[Action, ...], attempt: int, action: Action
) -> None:
    assert ClassRule(ladder=ladder).action_for(attempt) is action


RESET, REBOOT, POWER = Action.RESET_GPU, Action.REBOOT_NODE, Action.POWER_CYCLE
VENDOR, HOLD = Action.OPEN_VENDOR_CASE, Action.HOLD_FOR_HARDWARE


@pytest.mark.parametrize(
    ("ladder", "repairs", "action"),
    [
        pytest.param((RESET, REBOOT), {RESET: 1}, REBOOT, id="above what was tried"),
        pytest.param((RESET, REBOOT), {REBOOT: 1}, HOLD, id="above it, though it came first"),
        pytest.param((RESET, REBOOT, POWER), {REBOOT: 1}, POWER, id="not the rung below it"),
        pytest.param(
            (REBOOT, POWER), {Action.RESTART_DEVICE_PLUGIN: 1}, REBOOT, id="a lower rung elsewhere"
        ),
        pytest.param((REBOOT, REBOOT, HOLD), {REBOOT: 1}, REBOOT, id="a rung that is there twice"),
        pytest.param((REBOOT, REBOOT, HOLD), {REBOOT: 2}, HOLD, id="twice, and done twice"),
        pytest.param((REBOOT, VENDOR), {REBOOT: 1}, VENDOR, id="the vendor at the end"),
        pytest.param((REBOOT, VENDOR), {REBOOT: 1, VENDOR: 1}, HOLD, id="called already"),
        pytest.param((Action.REVIEW,), {REBOOT: 1}, Action.REVIEW, id="people's own"),
    ],
)
def test_a_ladder_goes_on_above_all_that_was_tried(
    ladder: tuple[Action, ...], repairs: dict[Action, int], action: Action
) -> None:
    assert ClassRule(ladder=ladder).action_for(1, repairs) is action


@pytest.mark.parametrize(
    ("ladder", "says"),
    [
        ("[reboot_node, reset_gpu]", "a ladder goes up"),
        ("[hold_for_hardware, reboot_node]", "a ladder goes up"),
        ("[review, reboot_node]", "no rungs of one ladder"),
        ("[drain_only, hold_for_hardware]", "no rungs of one ladder"),
    ],
)
def test_a_ladder_that_does_not_go_up_is_refused(ladder: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        overlaid(f"classes: {{gpu_off_bus: {{ladder: {ladder}}}}}")


def test_no_ladder_of_the_default_needs_anybody_but_kubernetes() -> None:
    named = {a for rule in POLICY.classes.values() for a in rule.ladder}
    assert not named & {POWER, Action.REPLACE_NODE, VENDOR}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        pytest.param({"clear_threshold": 90}, "healthy side", id="clears beyond its threshold"),
        pytest.param({"peers": {}, "hold": "1m"}, "do not go with peers", id="a hold beside peers"),
        pytest.param({"peers": {}, "op": "=="}, "one of >, >= and <", id="peers and an equality"),
        pytest.param({"peers": {"by": []}}, "at least 1 item", id="peers by nothing"),
        pytest.param({"hold": "soon"}, "is no duration", id="a hold that is no duration"),
    ],
)
def test_a_rule_whose_parts_do_not_fit_is_refused(changes: dict[str, Any], complaint: str) -> None:
    overlay = yaml.safe_dump({"signals": [{"name": "gpu_hot", **changes}]})
    with pytest.raises(SettingsError, match=complaint):
        parse_policy(default_policy_text(), overlay)


def test_objects_of_kubernetes_have_no_hold() -> None:
    overlay = yaml.safe_dump({"signals": [{"name": "not_ready", "hold": "1m"}]})
    with pytest.raises(SettingsError, match="do not go with Kubernetes' objects"):
        parse_policy(default_policy_text(), overlay)


def test_the_hash_is_the_same_in_every_process() -> None:
    code = (
        "from breakfix.policy import parse_policy; from breakfix.wiring import default_policy_text;"
        "print(parse_policy(default_policy_text()).hash)"
    )
    hashes = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert hashes == {POLICY.hash + "\n"}
