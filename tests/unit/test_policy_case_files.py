"""Files of rule tests: what is understood, and what is refused, with its place."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from breakfix import cli
from breakfix.errors import SettingsError
from breakfix.policy import parse_policy
from breakfix.rulebook.cases import load_cases, parse_cases, parse_range, parse_selector
from breakfix.rulebook.expected import check_signals
from breakfix.rulebook.placing import INSTANT, place
from breakfix.wiring import default_policy_text

ROOT = Path(__file__).resolve().parents[2]
POLICY = parse_policy(default_policy_text())


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        (0.95, [0.95, 0.9501], [0.94, 0.96]),
        (20, [20, 20.05], [19, 21]),
        (">= 0.9", [0.9, 5], [0.89]),
        ("<= 0.5", [0.5, -3], [0.51]),
        ("0.1..0.2", [0.1, 0.15, 0.2], [0.09, 0.21]),
        ("1..", [1, 9], [0.9]),
        ("..1", [1, -9], [1.1]),
    ],
    ids=str,
)
def test_a_range(text, inside, outside):
    found = parse_range(text)
    assert all(v in found for v in inside)
    assert not any(v in found for v in outside)


@pytest.mark.parametrize("text", ["", "many", "> 1", "1..2..3", "..", True, [1]], ids=repr)
def test_no_range(text):
    with pytest.raises(ValueError, match="no number to expect"):
        parse_range(text)


@pytest.mark.parametrize(
    ("text", "metric", "labels"),
    [
        ("up", "up", {}),
        ("up{}", "up", {}),
        ('A{gpu="0"}', "A", {"gpu": "0"}),
        ('A{ gpu = "0", port="1, 2" }', "A", {"gpu": "0", "port": "1, 2"}),
    ],
)
def test_a_selector(text, metric, labels):
    assert parse_selector(text) == (metric, labels)


@pytest.mark.parametrize("text", ["", "1up", "up{", "up{gpu=0}", 'up{gpu="0" x}', "a b"], ids=repr)
def test_no_selector(text):
    with pytest.raises(ValueError, match="is no series"):
        parse_selector(text)


def case(text):
    return f"cases:\n  - name: x\n    {text}\n    expect: {{}}\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("cases: {}", "needs a list `cases`", id="no list"),
        pytest.param("[]", "needs a list `cases`", id="no map"),
        pytest.param("cases: [", "not valid YAML", id="no YAML"),
        pytest.param(
            case("series: {A: 1}\n    series: {B: 1}"),
            "f.yaml:4:5: cases.0.series: is already in line 3",
            id="a key twice",
        ),
        pytest.param(
            case("policy: {signals: [{name: gpu_hot, weight: 0.1}, {name: gpu_hot}]}"),
            "f.yaml:3:54: policy.signals.1: gpu_hot is in this list already",
            id="an overlay with a signal twice",
        ),
        pytest.param(
            case("policy: {signals: [gpu_hot]}"),
            "f.yaml:3:24: policy.signals.0: each signal needs its `name`",
            id="an overlay with no map of a signal",
        ),
        pytest.param("cases: [x]", "a case must be a map", id="no case"),
        pytest.param("cases: []\ncase: 1", "no such key: case", id="a misspelt key"),
        pytest.param(case("like: nobody"), "no background 'nobody'", id="no background"),
        pytest.param(case("seres: {}"), "f.yaml:3:5: seres", id="a key of a case"),
        pytest.param(case("series: {A: 1y2}"), "'1y2' is no value", id="no values"),
        pytest.param(case("series: {'A{': 1}"), "is no series", id="no series"),
        pytest.param("cases: [{name: x}]", "expect: Field required", id="nothing expected"),
        pytest.param(
            "cases: [{name: x, expect: {class: bad}}]", "expect.class", id="no failure class"
        ),
        pytest.param("cases: [{name: x, expect: {findings: {a: b}}}]", "no number", id="no number"),
    ],
)
def test_a_wrong_file_names_the_place(text, says):
    with pytest.raises(SettingsError) as error:
        parse_cases(text, "f.yaml")
    assert says in str(error.value)


def test_a_case_that_is_no_trace_names_its_line():
    sources = parse_cases(case("xids: [{cod: 79}]"), "f.yaml")
    with pytest.raises(SettingsError, match=r"f\.yaml:2.*xids"):
        place(sources)


def expecting(text, more=""):
    return parse_cases(f"cases:\n  - {{name: x, {more}expect: {text}}}\n", "f.yaml")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param(
            "{silent: [ecc_dbf]}",
            "f.yaml:2: expect.silent: no signal 'ecc_dbf'; did you mean ecc_dbe",
            id="silence of no signal",
        ),
        pytest.param("{silent: [':79']}", "expect.silent: no signal ''", id="a key alone"),
        pytest.param("{speak: [gpu_hott]}", "expect.speak: no signal 'gpu_hott'", id="speech"),
        pytest.param("{known: [disk_smart]}", "expect.known: no signal", id="a known one"),
        pytest.param("{unknown: [disk_smart]}", "expect.unknown: no signal", id="an unknown one"),
        pytest.param("{findings: {'xid_lost:79': 79}}", "did you mean xid_last", id="a finding"),
        pytest.param(
            "{nodes: {node-2: {silent: [nosuchsig]}}}",
            "expect.nodes.node-2.silent: no signal 'nosuchsig'",
            id="of another node",
        ),
        pytest.param("{silent: ['ecc_dbe:7']}", "write ecc_dbe, which has no keys", id="no key"),
        pytest.param(
            "{unknown: ['xid_last:79']}", "write xid_last, for it is of all", id="one key unknown"
        ),
    ],
)
def test_a_name_that_no_signal_has_is_an_error_of_the_file(text, says):
    with pytest.raises(SettingsError) as error:
        check_signals(expecting(text), POLICY)
    assert says in str(error.value)


def test_every_wrong_name_is_told_at_once():
    sources = expecting("{speak: [nosuchsig], nodes: {b: {silent: [neither, ecc_dbe]}}}")
    with pytest.raises(SettingsError) as error:
        check_signals(sources, POLICY)
    assert str(error.value).count("f.yaml:2: ") == 2


OWN = "policy: {signals: [{name: disk_smart}]}, "


def test_a_signal_of_the_cases_own_overlay_may_be_named():
    names = "[disk_smart, 'disk_smart:sda', 'xid_last:79', ecc_dbe]"
    check_signals(expecting(f"{{silent: {names}, known: [disk_smart]}}", OWN), POLICY)


def test_the_cases_of_the_default_policy_name_its_signals():
    check_signals(load_cases([ROOT / "tests" / "policy"]), POLICY)


def test_the_command_asks_no_prometheus_for_a_name_that_no_signal_has(
    tmp_path, monkeypatch, capsys
):
    file = tmp_path / "cases.yaml"
    file.write_text("cases: [{name: x, expect: {silent: [nosuchsig]}}]")
    monkeypatch.setenv("BREAKFIX_PROMETHEUS_BIN", str(tmp_path / "nowhere"))
    monkeypatch.setattr(sys, "argv", ["breakfix", "policy", "test", str(file)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    assert "expect.silent: no signal 'nosuchsig'" in capsys.readouterr().err


def one(text):
    return place(parse_cases(text, "f.yaml"))[0]


def test_a_run_of_zeros_needs_no_quotes():
    series = one(case("series: {'A{gpu=\"0\"}': 0x40}")).trace.series[0]
    assert series.values == "0x40"


def test_the_last_sample_is_of_the_moment_of_the_look():
    placed = one(case("series: {'A{gpu=\"0\"}': 0x9 5}"))
    assert placed.trace.series[0].start == -10 * 30.0
    assert placed.trace.length == 0
    assert placed.at == INSTANT


def test_the_history_is_as_long_as_the_longest_series():
    assert one(case("series: {A: 0x99}")).trace.warmup == 99 * 30.0
    assert one(case("series: {A: 0x9}")).trace.warmup == 1200.0


def test_every_name_of_a_case_is_its_own():
    text = """
cases:
  - name: x
    fleet: [{count: 2, pool: p, rack: r, fabric: f}]
    xids: [{code: 79, at: -5m, nodes: [gpu-001, "gpu-*", rack=r]}]
    pods: [{name: web, node: gpu-001}]
    series: {'kube_x{node="gpu-002"}': 1}
    expect: {}
"""
    placed = one(text)
    group = placed.trace.fleet[0]
    assert placed.trace.node_names == ("c000-gpu-001", "c000-gpu-002")
    assert (group.pool, group.rack, group.fabric) == ("c000-p", "c000-r", "c000-f")
    assert placed.trace.xids[0].nodes == ("c000-gpu-001", "c000-gpu-*", "rack=c000-r")
    assert placed.trace.pods[0].node == "c000-gpu-001"
    assert placed.trace.series[0].nodes == ("c000-gpu-002",)


def test_a_background_of_the_file_lies_under_its_cases():
    text = """
backgrounds:
  small: {like: plain, gpus: 1, xids: [{code: 13, at: -9m}]}
cases:
  - {name: x, like: small, xids: [{code: 79, at: -5m}], expect: {}}
"""
    placed = one(text)
    assert placed.trace.fleet[0].gpus == 1
    assert [x.code for x in placed.trace.xids] == [13, 79]
    assert placed.trace.telemetry.metrics == ("basic", "xid", "remap", "pcie")


def test_cases_that_want_to_be_apart_have_instants_of_their_own():
    text = "cases: [{name: a, apart: true, expect: {}}, {name: b, apart: true, expect: {}}]"
    first, second = place(parse_cases(text, "f.yaml"))
    assert len({INSTANT, first.at, second.at}) == 3
