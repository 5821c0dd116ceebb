"""`breakfix policy`: what rules do, what changes change, where a value is wrong; the schema."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from breakfix import cli
from breakfix.observe.promql import coverage_query, signal_query
from breakfix.policy import parse_policy
from breakfix.rulebook.boldness import Effect
from breakfix.rulebook.compare import compare
from breakfix.rulebook.schema import policy_schema
from breakfix.wiring import default_policy_text

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = default_policy_text()
POLICY = parse_policy(DEFAULT)


@pytest.fixture
def run(monkeypatch, capsys):
    """`run("show", "-o", "json")` -> (exit code, stdout, stderr)."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["breakfix", "policy", *map(str, words)])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as left:
            cli.main()
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return run


@pytest.fixture
def overlay(tmp_path):
    def write(text, name="overlay.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


# --------------------------------------------------------------------------- the hash


def test_the_hash_is_the_same_in_every_process():
    code = (
        "from breakfix.policy import parse_policy; from breakfix.wiring import default_policy_text;"
        "print(parse_policy(default_policy_text()).hash)"
    )
    hashes = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONPATH": str(ROOT / "include"), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2", "3", "4")
    }
    assert hashes == {POLICY.hash}


# --------------------------------------------------------------------------- explain


def explained(run, rule):
    code, out, err = run("explain", rule, "-o", "json")
    assert (code, err) == (0, "")
    return json.loads(out)


def test_a_signal_is_explained_with_the_query_as_it_is_sent(run):
    rule = next(s for s in POLICY.signals if s.name == "nvlink_errors")
    facts = explained(run, "nvlink_errors")["facts"]
    assert facts["PromQL"] == signal_query(rule, POLICY.names, most_gpus=8)
    assert facts["coverage"] == coverage_query(
        rule, POLICY.names, stale_s=POLICY.timing.stale_sample_s
    )
    assert facts["window"] == "5m"
    assert "nvlink_crc" in facts["shares its group with"]


def test_a_finding_that_needs_another_names_the_groups_that_suffice(run):
    facts = explained(run, "nvlink_errors")["facts"]
    assert facts["acts alone"] is False
    groups = {line.split()[1] for line in facts["acts with one of"]}
    assert {"recovery", "xid"} <= groups
    assert "nvlink" not in groups
    assert not [line for line in facts["acts with one of"] if "ecc_uncorrectable" in line]


def test_a_finding_that_acts_alone_says_what_it_leads_to(run):
    facts = explained(run, "ecc_dbe")["facts"]
    assert facts["acts alone"] is True
    assert facts["alone it proves"].startswith("ecc_uncorrectable at 0.95")


def test_what_suffices_follows_the_policy_in_force(run, overlay, monkeypatch):
    raised = overlay("classes: {ecc_uncorrectable: {min_confidence: 0.96}}")
    monkeypatch.setenv("BREAKFIX_POLICY", str(raised))
    assert explained(run, "ecc_dbe")["facts"]["acts alone"] is False


@pytest.mark.parametrize("name", ["79", "xid:79", "xid 79", "XID79"])
def test_an_xid_is_explained_with_the_vendors_row(run, name):
    said = explained(run, name)
    assert (said["kind"], said["name"]) == ("xid", "79")
    assert said["facts"]["vendor"]["immediate"] == "RESTART_BM"
    assert said["facts"]["class"] == "gpu_off_bus"
    assert 74 in said["facts"]["is followed by"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        pytest.param("13", "app_xids", id="an application's"),
        pytest.param("9999", "does not classify", id="unknown to policy and vendor"),
    ],
)
def test_an_xid_without_a_rule_says_what_becomes_of_it(run, name, says):
    assert says in " ".join(explained(run, name)["sentences"])


def test_a_class_names_what_proves_it(run):
    facts = explained(run, "gpu_off_bus")["facts"]
    assert facts["ladder"] == ["reboot_node", "hold_for_hardware"]
    assert "xid:79" in facts["proven alone by"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("limits.max_attempts", 2), ("max_attempts", 2), ("timing.boot_grace", 600.0)],
)
def test_a_number_is_explained_with_its_comment(run, name, value):
    said = explained(run, name)
    assert said["facts"]["value"] == value
    assert said["facts"]["comment"]


@pytest.mark.parametrize("name", [s.name for s in POLICY.signals])
def test_every_signal_can_be_explained_on_a_screen(run, name):
    code, out, err = run("explain", name)
    assert (code, err) == (0, "")
    assert name in out


@pytest.mark.parametrize(
    ("name", "near"),
    [("ecc_dbf", "ecc_dbe"), ("gpu_of_bus", "gpu_off_bus"), ("max_atempts", "limits.max_attempts")],
)
def test_an_unknown_rule_is_one_line_with_the_nearest(run, name, near):
    code, out, err = run("explain", name)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert near in err


# --------------------------------------------------------------------------- diff


def test_equal_policies_leave_with_0(run):
    assert run("diff", "default", "current")[0] == 0


def test_a_dumped_policy_is_the_policy(run, tmp_path):
    dumped = tmp_path / "dumped.json"
    dumped.write_text(run("show", "-o", "json")[1])
    assert run("diff", dumped, "default")[0] == 0


def test_a_dumped_policy_that_says_something_twice_is_refused(run, tmp_path):
    dumped = tmp_path / "dumped.json"
    text = run("show", "-o", "json")[1].rstrip().removesuffix("}") + ',"version": "b"}'
    dumped.write_text(text)
    code, _, err = run("diff", dumped, "default")
    assert (code, "version: is already in line" in err) == (2, True)


def test_different_policies_leave_with_1_and_say_what_is_bolder(run, overlay):
    path = overlay("classes: {disk: {mode: auto}}\nversion: site\n")
    code, out, err = run("diff", "default", path, "-o", "json")
    assert (code, err) == (1, "")
    effects = {c["path"]: c["effect"] for c in json.loads(out)["changes"]}
    assert effects == {"classes.disk.mode": "bolder", "version": "words only"}
    code, out, _ = run("diff", "default", path)
    assert code == 1
    assert "recommend -> auto" in out


def effect_of(text):
    (change,) = compare(POLICY, parse_policy(DEFAULT, text))
    return change.effect


BOLDER = [
    "signals: [{name: nvlink_errors, threshold: 0.5}]",
    "signals: [{name: nvlink_errors, weight: 0.8}]",
    "signals: [{name: nvlink_errors, mode: alone}]",
    "signals: [{name: gpu_count_short, is_required: false}]",
    "signals: [{name: row_remap_pending, start_at: reboot_node}]",
    (
        "signals: [{name: mine, query: up, coverage: up, weight: 0.5, group: mine,"
        " mode: corroborate, kind: state, failure_class: disk, text: t, source: s}]"
    ),
    "xids: {74: {weight: 0.8}}",
    "xids: {74: {mode: alone}}",
    "xids: {999: {failure_class: gsp, mode: alone, weight: 0.9, source: s}}",
    "app_xids: [8]",
    "classes: {disk: {mode: auto}}",
    "classes: {disk: {min_confidence: 0.5}}",
    "classes: {gpu_off_bus: {diag_level: 1}}",
    "classes: {gpu_recovery: {ladder: [reboot_node]}}",
    "classes: {gpu_off_bus: {ladder: [reboot_node, power_cycle, hold_for_hardware]}}",
    "limits: {out: {rack: {nodes: 2}}}",
    "limits: {out: {fleet: {share: 0.2}}}",
    "limits: {max_attempts: 3}",
    "limits: {cooldown: 1m}",
    "limits: {attempts_window: 1d}",
    "limits: {protected_node_labels: []}",
    "limits: {protected_pods: []}",
    "common_cause: {min_nodes: 5}",
    "common_cause: {min_share: 0.9}",
    "common_cause: {window: 1m}",
    "common_cause: {scopes: [rack]}",
    "drain: {may_delete_unmanaged: true}",
    "timing: {clear: 1m}",
    "timing: {watch: 1h}",
    "timing: {boot_grace: 1m}",
    "timing: {evidence_max_age: 9h}",
    "approvals: {approvers: [ann]}",
    "approvals: {ask_before: [repair]}",
    "approvals: {gang_gpus: 1000}",
    "approvals: {tiers: []}",
    "approvals: {annotation_returns: true}",
    "common_cause: {surge_nodes: 20}",
    "common_cause: {part_classes: [ecc_uncorrectable, row_remap_failed, gpu_off_bus]}",
    "limits: {maintenance_before: 1m}",
    "limits: {hands_off_times: []}",
    "limits: {cooldown_factor: 1}",
    "limits: {max_attempts_of_class: 3}",
    "limits: {headroom_claims: ignore}",
    "limits: {breaker: {most: {fleet: {share: 0.5}}}}",
    "limits: {breaker: {cool_down: 1m}}",
    "limits: {emergency: {longest: 8h}}",
]
CAREFUL = [
    "signals: [{name: nvlink_errors, threshold: 2}]",
    "signals: [{name: ecc_dbe, weight: 0.8}]",
    "signals: [{name: ecc_dbe, mode: corroborate}]",
    "signals: [{name: nvlink_errors, hold: 5m}]",
    "signals: [{name: nvlink_errors, also_window: 1h}]",
    "xids: {79: {mode: corroborate}}",
    "classes: {gpu_off_bus: {mode: recommend}}",
    "classes: {disk: {min_confidence: 0.95}}",
    "limits: {exclusion_labels: {site: mine}}",
    "limits: {headroom_gpus: 8}",
    "limits: {protected_pools: [serve]}",
    "limits: {out: {fleet: {in_service: 9}}}",
    "limits: {emergency: {may_lift: [windows]}}",
    "limits: {alerts: {block: [{match: {alertname: KubeAPIDown}}]}}",
    "limits: {hands_off_labels: {site/owner: [them]}}",
    "timing: {stale_sample: 1m}",
    "common_cause: {min_nodes: 2}",
]
NEITHER = [
    "signals: [{name: gpu_hot, threshold: 60}]",
    "signals: [{name: ecc_dbe, query: up}]",
    "signals: [{name: ecc_dbe, group: mine}]",
    "names: {gpu: [UUID]}",
]


@pytest.mark.parametrize(
    ("text", "effect"),
    [
        *((t, Effect.BOLDER) for t in BOLDER),
        *((t, Effect.CAREFUL) for t in CAREFUL),
        *((t, Effect.OTHER) for t in NEITHER),
        ("signals: [{name: ecc_dbe, text: other}]", Effect.WORDS),
    ],
)
def test_what_a_change_does_to_automation(text, effect):
    assert effect_of(text) is effect


@pytest.mark.parametrize("text", [*BOLDER, *CAREFUL])
def test_undoing_a_change_does_the_opposite(text):
    (there,) = compare(POLICY, parse_policy(DEFAULT, text))
    (back,) = compare(parse_policy(DEFAULT, text), POLICY)
    assert {there.effect, back.effect} == {Effect.BOLDER, Effect.CAREFUL}
    assert (there.before, there.after) == (back.after, back.before)


def test_a_file_that_is_not_there_is_one_line(run):
    code, _, err = run("diff", "default", "/nowhere.yaml")
    assert (code, err.count("\n")) == (2, 1)
    assert "cannot read /nowhere.yaml" in err


# --------------------------------------------------------------------------- check


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        pytest.param("limts: {}", "1:1", "did you mean limits?", id="a misspelt section"),
        pytest.param(
            "drain:\n  poll: 5s\n  time_out: 1m", "3:3", "did you mean timeout?", id="a key"
        ),
        pytest.param("limits:\n  headroom_gpus: -1", "2:3", "greater than", id="a number"),
        pytest.param(
            "signals:\n  - name: ecc_dbe\n    weigth: 1",
            "3:5",
            "did you mean weight?",
            id="a key of a signal",
        ),
        pytest.param(
            "signals:\n  - name: gpu_hot\n    op: '=>'", "3:5", "'>='", id="a word of a signal"
        ),
        pytest.param(
            "classes:\n  gpu_of_bus: {}", "2:3", "did you mean gpu_off_bus?", id="a class"
        ),
        pytest.param("xids:\n  79: {mode: allone}", "2:8", "'alone'", id="a word of an XID"),
        pytest.param("a: [", "1:5", "not valid YAML", id="no YAML"),
        pytest.param("- 1", "1:1", "must be a map", id="no map"),
        pytest.param("signals: [{weight: 1}]", "1:11", "needs its `name`", id="no name"),
        pytest.param("signals: {}", "1:1", "must be a list", id="no list"),
        pytest.param("drain: {timeout: soon}", "1:9", "no duration", id="no duration"),
        pytest.param(
            "limits:\n  out: {fleet: {share: 0.01}}\nlimits:\n  cooldown: 1m",
            "3:1",
            "limits: is already in line 1",
            id="a section twice",
        ),
        pytest.param(
            "signals:\n  - {name: ecc_dbe, weight: 0.9}\n  - {name: ecc_dbe, weight: 0.1}",
            "3:5",
            "ecc_dbe is in this list already",
            id="a signal twice",
        ),
    ],
)
def test_a_wrong_value_is_told_with_its_place(run, overlay, text, place, says):
    path = overlay(text)
    code, _, err = run("check", path)
    assert (code, err.count("\n")) == (2, 1)
    assert f"{path}:{place}: " in err
    assert says in err
    code, out, _ = run("check", path, "-o", "json")
    assert (code, json.loads(out)["is_valid"]) == (2, False)
    assert json.loads(out)["faults"][0]["place"]["line"] == int(place.split(":")[0])


def test_every_wrong_value_is_told_at_once(run, overlay):
    path = overlay("limits: {max_runs: 0}\ntiming: {watch: soon}\nlimts: 1\n")
    faults = json.loads(run("check", path, "-o", "json")[1])["faults"]
    assert sorted(f["place"]["line"] for f in faults) == [1, 2, 3]


def test_the_overlay_in_force_is_checked_when_none_is_named(run, overlay, monkeypatch):
    monkeypatch.setenv("BREAKFIX_POLICY", str(overlay("limts: {}")))
    assert run("check")[0] == 2


def notes(run, *words):
    code, out, err = run("check", *words, "-o", "json")
    assert (code, err) == (0, "")
    return [n for n in json.loads(out)["notes"] if "approvers" not in n]


def test_every_query_of_the_default_is_understood(run):
    assert notes(run) == []


@pytest.mark.parametrize(
    ("text", "path"),
    [
        pytest.param(
            "signals: [{name: ecc_dbe, query: 'max by ($node) (m) m'}]",
            "signals.ecc_dbe.query",
            id="a query",
        ),
        pytest.param(
            "signals: [{name: ecc_dbe, coverage: 'm and'}]", "signals.ecc_dbe.coverage", id="an end"
        ),
        pytest.param(
            "signals: [{name: ecc_dbe, since_query: 'm @ end()'}]",
            "signals.ecc_dbe.since_query",
            id="what Prometheus knows alone",
        ),
        pytest.param("facts: {os: {query: 'm n'}}", "facts.os.query", id="a fact"),
    ],
)
def test_a_query_that_is_not_understood_is_a_note(run, overlay, text, path):
    (note,) = notes(run, overlay(text))
    assert note.startswith(f"{path} is not understood here: ")
    assert "policy test" in note


# --------------------------------------------------------------------------- schema


def test_the_published_schema_is_current(run):
    published = (ROOT / "docs" / "policy.schema.json").read_text(encoding="utf-8")
    assert run("schema")[1] == published, "run `breakfix policy schema > docs/policy.schema.json`"


@pytest.fixture(scope="module")
def is_accepted():
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(policy_schema())

    def is_accepted(text):
        # as an editor has it: JSON, whose keys are text
        return validator.is_valid(json.loads(json.dumps(yaml.safe_load(text))))

    return is_accepted


@pytest.mark.parametrize(
    "text", [DEFAULT, *BOLDER, *CAREFUL, "{}"], ids=lambda t: "the default" if t is DEFAULT else t
)
def test_the_schema_accepts_what_the_policy_accepts(is_accepted, text):
    assert is_accepted(text)


@pytest.mark.parametrize(
    "text",
    [
        "limts: {}",
        "limits: {headroom_gpus: -1}",
        "signals: [{name: ecc_dbe, weigth: 1}]",
        "signals: [{weight: 0.1}]",
        "signals: [{name: ecc_dbe, weight: 2}]",
        "classes: {gpu_of_bus: {}}",
        "classes: {disk: {mode: yolo}}",
        "drain: {timeout: soon}",
        "xids: {abc: {}}",
        "limits: {out: {row: {nodes: 1}}}",
    ],
)
def test_the_schema_refuses_what_the_policy_refuses(is_accepted, text):
    assert not is_accepted(text)


# --------------------------------------------------------------------------- rungs


RUNG = "version: x\nclasses:\n  gsp:\n    ladder: [reboot_node, power_cycle]\n"


def test_check_refuses_a_rung_that_nobody_is_there_to_do(run, overlay):
    code, _, err = run("check", overlay(RUNG))
    assert code == 2
    assert "overlay.yaml:4:" in err
    assert "classes.gsp.ladder: nobody is configured to do power_cycle" in err


def test_check_takes_it_once_somebody_is(run, overlay, monkeypatch):
    for name, value in {
        "REPAIR_PROVIDERS": '{"power_cycle": "redfish"}',
        "REDFISH_HOSTS": ".bmc.example",
        "REDFISH_USER": "u",
        "REDFISH_PASSWORD": "p",
    }.items():
        monkeypatch.setenv(f"BREAKFIX_{name}", value)
    assert run("check", overlay(RUNG))[0] == 0
