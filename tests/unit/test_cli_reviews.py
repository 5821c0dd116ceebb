"""The review queue, labels and the learning report, as an engineer types them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import yaml

from breakfix.cli.reviews import age, rest_until
from breakfix.errors import SettingsError
from breakfix.model import (
    Action,
    Case,
    CaseEnd,
    FailureClass,
    Judgement,
    Label,
    NodeState,
    Plan,
    SignalMode,
)
from breakfix.policy import Learning
from breakfix.wiring import default_policy_text
from tests.contract.ledger_builders import NOW, an_intent, limits
from tests.contract.test_ledger_labels import weak
from tests.contract.test_ledger_sweeps import a_finding, an_incident
from tests.unit import test_cli_commands as commands
from tests.unit.test_cli_commands import is_one_line, read

#: The fixtures of those tests: a way to type commands, a ledger, a fleet.
run, ledger, database = commands.run, commands.ledger, commands.database
fleet, on_fleet = commands.fleet, commands.on_fleet


@pytest.fixture(autouse=True)
def _cluster_of_the_ledger(monkeypatch):
    monkeypatch.setenv("BREAKFIX_CLUSTER_NAME", "test")


def sweep(ledger, *verdicts, incidents=()):
    now = datetime.now(UTC) - timedelta(hours=3)
    judgement = Judgement(now, "1", "policy-1", verdicts, tuple(incidents))
    plan = Plan(now, "policy-1", (), (), tuple(incidents))
    ledger.record_sweep(judgement, plan, actor="fleet_sweep", now=now)
    return ledger.reviews()


def admitted(ledger, node="n1"):
    intent = replace(an_intent(node), findings=(a_finding(node),), policy_hash="older")
    case = ledger.admit(intent, limits(), requester="sweep", now=datetime.now(UTC))
    assert isinstance(case, Case)
    return case


# --------------------------------------------------------------------------- the queue


def test_the_queue_lists_what_waits_and_can_be_narrowed(run, ledger):
    verdicts = [weak("n1"), weak("n2", failure_class=FailureClass.THERMAL)]
    sweep(ledger, *verdicts, incidents=[an_incident("n3", "n4")])

    def listed(*words):
        return [i["node"] for i in read(run("review", "list", *words, "-o", "json"))]

    assert listed() == ["n1", "n2", "rack=r9"]
    assert listed("--class", "thermal") == ["n2"]
    assert listed("--class", "incident") == ["rack=r9"]
    assert listed("--node", "n1") == ["n1"]
    read(run("review", "answer", "1", "noise", "-o", "json"))
    assert listed() == ["n2", "rack=r9"]
    assert listed("--answered") == ["n1", "n2", "rack=r9"]
    code, out, _ = run("review", "list", "--answered")
    assert (code, "3h" in out, "noise" in out) == (0, True, True)


def test_an_item_is_shown_with_its_evidence_and_how_sure_it_is(run, ledger):
    sweep(ledger, weak("n1", "a", "b", unknown=("nvlink",)))
    code, out, err = run("review", "show", "1")
    assert (code, err) == (0, "")
    for word in (
        *("n1 is suspect", "confidence 0.", "unknown: nvlink", "policy: 1 (policy-1)"),
        *("first seen", "in 1 sweeps", "NVIDIA Xid catalogue", "missing:", "review answer 1"),
    ):
        assert word in out
    shown = read(run("review", "show", "1", "-o", "json"))
    assert shown["is_waiting"]
    assert shown["why"]["rows"][0]["group"] == "driver"
    assert [f["signal"] for f in shown["detail"]["findings"]] == ["a", "b"]


def test_an_incident_is_shown_with_its_nodes(run, ledger):
    sweep(ledger, incidents=[an_incident("n3", "n4")])
    code, out, _ = run("review", "show", "1")
    assert (code, "2 nodes, nvlink_down: n3, n4" in out) == (0, True)


# --------------------------------------------------------------------------- answers


@pytest.mark.parametrize(
    ("verdict", "label", "says"),
    [
        pytest.param(weak("n1"), "real", "breakfix drain n1", id="real leaves the act to people"),
        pytest.param(weak("n1"), "noise", "not queued again until", id="noise rests"),
        pytest.param(weak("n1"), "known", "not queued again until", id="known rests"),
        pytest.param(
            weak("n1", mode=SignalMode.ALONE),
            *("noise", "stays in the queue"),
            id="what may act by itself does not",
        ),
    ],
)
def test_an_answer_says_what_it_does(run, ledger, verdict, label, says):
    sweep(ledger, verdict)
    code, out, err = run("review", "answer", "1", label)
    assert (code, err) == (0, "")
    assert says in out


def test_an_answer_is_recorded_under_the_name_of_who_typed_it(run, ledger, monkeypatch):
    monkeypatch.setenv("SUDO_USER", "ann")
    sweep(ledger, weak("n1"))
    words = ("--note", "bad cable", "--class", "fabric", "--until", "2d")
    said = read(run("review", "answer", "1", "known", *words, "-o", "json"))
    (answer,) = said["answers"]
    assert (answer["actor"], answer["label"], answer["note"]) == ("cli:ann", "known", "bad cable")
    assert (answer["failure_class"], said["is_waiting"]) == ("fabric", False)
    until = datetime.fromisoformat(answer["until"])
    assert timedelta(days=2) - (until - datetime.now(UTC)) < timedelta(minutes=5)
    assert ledger.audit_entries()[-1].event == "review.answered"
    assert read(run("audit", "verify", "-o", "json"))["is_sound"]


def test_an_answer_makes_nothing_act(run, ledger):
    sweep(ledger, weak("n1"))
    read(run("review", "answer", "1", "real", "-o", "json"))
    assert ledger.cases() == ()
    assert ledger.node_records()["n1"].state is NodeState.SUSPECT


@pytest.mark.parametrize(
    ("label", "text", "wanted"),
    [
        pytest.param(Label.REAL, "", None, id="real has no end"),
        pytest.param(Label.NOISE, "", timedelta(days=3), id="noise rests as policy says"),
        pytest.param(Label.KNOWN, "", timedelta(days=7), id="known rests longer"),
        pytest.param(Label.KNOWN, "36h", timedelta(hours=36), id="a duration"),
        pytest.param(Label.NOISE, "2026-01-03T03:04:05Z", timedelta(days=1), id="a time"),
    ],
)
def test_how_long_an_answer_holds(label, text, wanted):
    now = NOW.replace(microsecond=0)
    until = rest_until(label, text, Learning(), now)
    assert until == (now + wanted if wanted else None)


@pytest.mark.parametrize(
    ("label", "text", "says"),
    [
        pytest.param(Label.REAL, "1d", "noise and known", id="real with an end"),
        pytest.param(Label.NOISE, "soon", "--until 'soon'", id="no duration and no time"),
        pytest.param(Label.NOISE, "0s", "at most", id="no time at all"),
        pytest.param(Label.NOISE, "91d", "90 days", id="longer than policy lets anybody"),
        pytest.param(Label.KNOWN, "2020-01-01T00:00:00Z", "to come", id="a time gone by"),
        pytest.param(Label.KNOWN, "99999999999d", "--until", id="beyond all calendars"),
    ],
)
def test_a_wrong_end_is_refused(label, text, says):
    with pytest.raises(SettingsError, match=says):
        rest_until(label, text, Learning(), NOW)


@pytest.mark.parametrize(
    ("seconds", "text"), [(-5, "0s"), (59, "59s"), (60, "1m"), (7300, "2h"), (1e6, "11d")]
)
def test_an_age_in_a_word(seconds, text):
    assert age(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        pytest.param(["review", "show", "7"], "no review item 7", id="show what is not there"),
        pytest.param(["review", "answer", "7", "real"], "no review item 7", id="answer it"),
        pytest.param(["case", "label", "c9", "real"], "no case 'c9'", id="label no case"),
        pytest.param(["report", "--since", "soon"], "--since", id="no window"),
        pytest.param(["report", "--since", "0s"], "--since", id="an empty window"),
    ],
)
def test_a_wrong_word_is_one_line(run, ledger, words, says):
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert is_one_line(err)
    assert says in err


# --------------------------------------------------------------------------- cases


def test_a_case_says_why_it_was_opened_and_by_which_policy(run, ledger):
    case = admitted(ledger)
    code, out, err = run("case", "show", case.id)
    assert (code, err) == (0, "")
    for word in (
        *("n1 is quarantined: gpu_off_bus", "each source counts once", "driver", "XID 79"),
        *("made under policy older", "label: none (none): the case is open"),
    ):
        assert word in out
    shown = read(run("case", "show", case.id, "-o", "json"))
    assert shown["why"]["rows"][0]["weight"] == 0.9


def test_a_case_by_hand_has_no_why(run, ledger):
    intent = replace(an_intent("n1"), action=Action.DRAIN_ONLY, is_by_hand=True)
    case = ledger.admit(intent, limits(), requester="cli:ann", now=datetime.now(UTC))
    shown = read(run("case", "show", case.id, "-o", "json"))
    assert (shown["why"], shown["labels"]) == (None, [])
    assert run("case", "show", case.id)[0] == 0


def test_a_case_is_labelled_and_shows_it(run, ledger):
    case = admitted(ledger)
    ledger.end_case(case.id, 1, CaseEnd.OVERRIDDEN, actor="a", reason="r", now=datetime.now(UTC))
    assert "label: noise (likely)" in run("case", "show", case.id)[1]
    given = read(run("case", "label", case.id, "real", "--note", "seen", "-o", "json"))
    assert (given["label"], given["case_id"]) == ("real", case.id)
    assert "label: real (person)" in run("case", "show", case.id)[1]
    shown = read(run("case", "show", case.id, "-o", "json"))
    assert [a["note"] for a in shown["labels"]] == ["seen"]


# --------------------------------------------------------------------------- the report


def test_the_report_counts_and_proposes_what_the_policy_takes(run, ledger, tmp_path, monkeypatch):
    bars = {"approve": {"labels": 2, "precision": 0.9}, "auto": {"labels": 2, "precision": 0.9}}
    overlay = {"classes": {"gpu_off_bus": {"mode": "auto"}}, "learning": {"demote": bars}}
    file = tmp_path / "overlay.yaml"
    file.write_text(yaml.safe_dump(overlay))
    monkeypatch.setenv("BREAKFIX_POLICY", str(file))
    for node, label in (("n1", "noise"), ("n2", "real")):
        read(run("case", "label", admitted(ledger, node).id, label, "-o", "json"))
    said = read(run("report", "-o", "json"))
    assert said["labels"] == {"person": 2}
    assert said["classes"][0]["precision"]["right"] == 1
    assert [p["after"] for p in said["proposals"]] == ["approve"]
    proposed = tmp_path / "proposed.yaml"
    proposed.write_text(said["overlay"])
    assert run("policy", "check", str(proposed))[0] == 0
    code, out, err = run("report", "--since", "12h")
    assert (code, err) == (0, "")
    assert "nothing of it is applied by itself" in out
    assert ledger.reports() == ()


def test_an_empty_ledger_has_an_empty_report(run, ledger):
    code, out, _ = run("report")
    assert (code, "no proposals" in out) == (0, True)
    assert read(run("report", "-o", "json"))["calibration"]["ece"] is None


# --------------------------------------------------------------------------- judge


def test_judge_shows_what_was_said_of_the_same_evidence(run, on_fleet, ledger, monkeypatch):
    verdict = weak("r1-n01")
    sweep(ledger, verdict)
    read(run("review", "answer", "1", "noise", "-o", "json"))

    def judged(observation, policy, records, now):
        return Judgement(now, policy.version, policy.hash, (verdict, weak("r1-n02")))

    monkeypatch.setattr("breakfix.flow.assessment.judge", judged)
    first, second = json.loads(run("judge", "-o", "json")[1])["nodes"]
    assert (first["answered"]["label"], "answered" in second) == ("noise", False)
    assert first["recommended_action"] == "review"
    assert "(answered: noise)" in " ".join(run("judge")[1].split())


def test_the_default_policy_says_what_holds_where_a_site_says_nothing():
    rules = Learning.model_validate(yaml.safe_load(default_policy_text())["learning"])
    assert rules == Learning()
    assert 0 < rules.noise_rest_s <= rules.known_rest_s <= rules.longest_rest_s
