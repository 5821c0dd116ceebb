"""The default policy judges its test cases as they say, through a real Prometheus; and a case that
says something untrue fails.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from breakfix import cli
from breakfix.policy import parse_policy
from breakfix.rulebook.cases import load_cases, parse_cases
from breakfix.rulebook.running import RuleTests
from breakfix.wiring import default_policy_text

ROOT = Path(__file__).resolve().parents[2]
CASES = load_cases([ROOT / "tests" / "policy"])
POLICY = parse_policy(default_policy_text())


def failures(sources, policy=POLICY):
    with RuleTests(sources) as tests:
        results = tests.evaluate(policy)
    return {r.source.case.name: [str(p) for p in r.problems] for r in results if r.problems}


def test_the_default_policy_judges_every_case_as_it_says():
    assert failures(CASES) == {}


def test_the_names_of_the_cases_are_told_apart():
    names = [s.case.name for s in CASES]
    assert sorted({n for n in names if names.count(n) > 1}) == []


def test_the_documented_cases_are_true():
    text = (ROOT / "docs" / "policy.md").read_text(encoding="utf-8")
    examples = [b for b in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "cases:" in b]
    assert examples
    assert [failures(parse_cases(e, "docs/policy.md")) for e in examples] == [{}] * len(examples)


BROKEN = """
backgrounds:
  dbe: {series: {'DCGM_FI_DEV_ECC_DBE_VOL_TOTAL{gpu="0"}': 0x10 2x2}}
cases:
  - {name: class, like: dbe, expect: {class: gpu_missing}}
  - {name: no class, like: dbe, expect: {class: none}}
  - {name: action, like: dbe, expect: {action: reboot_node}}
  - {name: proven, like: dbe, expect: {proven: false}}
  - {name: refusal, like: dbe, expect: {refusal: common_cause}}
  - {name: state, like: dbe, expect: {state: healthy}}
  - {name: confidence, like: dbe, expect: {confidence: 0.9}}
  - {name: confidence at least, like: dbe, expect: {confidence: ">= 0.96"}}
  - {name: confidence at most, like: dbe, expect: {confidence: "<= 0.94"}}
  - {name: confidence between, like: dbe, expect: {confidence: "0.1..0.2"}}
  - {name: nothing speaks, like: dbe, expect: {findings: []}}
  - {name: another speaks, like: dbe, expect: {findings: [ecc_dbe, gpu_hot]}}
  - {name: value, like: dbe, expect: {findings: {ecc_dbe: 3}}}
  - {name: key, like: dbe, expect: {findings: ["ecc_dbe:7"]}}
  - {name: speak, like: dbe, expect: {speak: [gpu_hot]}}
  - {name: silent, like: dbe, expect: {silent: [ecc_dbe]}}
  - {name: unknown, like: dbe, expect: {unknown: [ecc_dbe]}}
  - {name: known, like: silent, expect: {known: [ecc_dbe]}}
  - {name: reason, like: dbe, expect: {reason: cosmic rays}}
  - {name: incidents, like: dbe, expect: {incidents: [rack=r1]}}
  - {name: a node that is not there, like: dbe, expect: {nodes: {ghost: {class: none}}}}
  - {name: another node, like: dbe, fleet: 2, expect: {nodes: {node-2: {class: none}}}}
  - {name: overlay, like: dbe, policy: {signals: [{name: ecc_dbe, threshold: 5}]},
     expect: {class: ecc_uncorrectable}}
"""


def test_each_thing_that_is_not_as_expected_is_told():
    sources = parse_cases(BROKEN, "broken.yaml")
    told = failures(sources)
    assert sorted(told) == sorted(s.case.name for s in sources)
    assert {name: len(lines) for name, lines in told.items() if len(lines) != 1} == {}
    assert told["value"] == ["finding ecc_dbe: expected 3, got 2"]
    assert told["class"] == ["class: expected gpu_missing, got ecc_uncorrectable"]
    assert told["another node"][0].startswith("node-2: class")


ALIKE = """
cases:
  - {name: a rack that fails together, fleet: 4, xids: [{code: 79, at: -5m, gpus: 0}],
     expect: {refusal: common_cause}}
  - {name: one node of another case, xids: [{code: 79, at: -5m, gpus: 0}],
     expect: {refusal: none, action: reboot_node, incidents: []}}
  - {name: a healthy node beside them, expect: {class: none, findings: [], incidents: []}}
  - {name: a healthy node apart, apart: true, expect: {class: none, findings: []}}
  - {name: attempts are remembered, records: {node: {attempts: 1}},
     xids: [{code: 79, at: -5m, gpus: 0}], expect: {action: hold_for_hardware}}
  - {name: what was before a repair does not count, records: {node: {repaired: 3m}},
     xids: [{code: 79, at: -5m, gpus: 0}], expect: {class: none, findings: []}}
  - {name: an XID in the overlay of a case, policy: {xids: {79: {mode: corroborate, weight: 0.5}}},
     xids: [{code: 79, at: -5m, gpus: 0}], expect: {class: gpu_off_bus, proven: false}}
"""


def test_cases_do_not_see_each_other_and_have_a_past():
    assert failures(parse_cases(ALIKE, "alike.yaml")) == {}


def test_the_command_leaves_with_1_and_says_where(tmp_path, monkeypatch, capsys):
    file = tmp_path / "cases.yaml"
    file.write_text(BROKEN)
    monkeypatch.setattr(sys, "argv", ["breakfix", "policy", "test", str(file), "--only", "value"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    out, err = capsys.readouterr()
    assert (left.value.code, err) == (1, "")
    assert f"{file}:17: value" in out
    assert "1 cases, 0 passed, 1 failed" in out


def test_the_command_prints_json(tmp_path, monkeypatch, capsys):
    file = tmp_path / "cases.yaml"
    file.write_text(ALIKE)
    words = ["breakfix", "policy", "test", str(file), "--only", "healthy", "-o", "json"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as left:
        cli.main()
    said = json.loads(capsys.readouterr().out)
    assert not left.value.code
    assert (said["passed"], said["failed"]) == (2, 0)
    assert [c["has_passed"] for c in said["cases"]] == [True, True]
