"""The generator of labelled traces: seeded, complete, and true to itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import yaml

from breakfix.replay.load import make_trace, parse_traces
from tests.traces import faults
from tests.traces.corpus import FOLDER, as_yaml, corpus_files, stories
from tests.traces.noise import DAY, Noise, Rates, draw_events, noise_story, stream
from tests.traces.scenarios import CASES, KINDS, SCENARIOS, SIGNALS
from tests.traces.scenarios.half_evidence import RATIOS
from tests.traces.story import Story

NAMES = sorted(SCENARIOS)
SEEDS = (1, 1000)


def told(name: str, seed: int) -> Story:
    return SCENARIOS[name].story(seed)


# ------------------------------------------------------------------ the list is complete
@pytest.mark.parametrize("case", CASES)
def test_each_case_of_the_field_has_a_scenario(case):
    assert any(s.case == case for s in SCENARIOS.values())


@pytest.mark.parametrize("signal", SIGNALS)
def test_each_signal_has_a_real_fault_and_a_look_alike(signal):
    true = {n for n, s in SCENARIOS.items() if signal in s.true_of}
    false = {n for n, s in SCENARIOS.items() if signal in s.false_of}
    assert true, f"no fault shows {signal}"
    assert false, f"nothing looks like {signal}"
    assert not true & false


def test_scenarios_name_signals_cases_and_kinds_that_exist():
    for s in SCENARIOS.values():
        assert {*s.true_of, *s.false_of} <= set(SIGNALS), s.name
        assert s.case in {"", *CASES}, s.name
        assert s.kind in KINDS, s.name


# ------------------------------------------------------------------ seeds
@pytest.mark.parametrize("name", NAMES)
def test_a_seed_gives_the_same_trace_and_another_seed_another(name):
    first = as_yaml(told(name, 7).document())
    assert first == as_yaml(told(name, 7).document())
    other = told(name, 8).document() | {"name": told(name, 7).document()["name"], "seed": 7}
    assert first != as_yaml(other)


def test_one_scenario_does_not_change_the_dice_of_another():
    alone = [s.document() for s in stories([3], ["off_by_none", "bad_driver"][1:])]
    together = {s.scenario: s.document() for s in stories([3], ["bad_driver", "hot_rack"])}
    assert alone == [together["bad_driver"]]


def test_every_nth_seed_reaches_each_scenario_by_turns():
    found = [s.scenario for s in stories(range(1000, 1010), every=10)]
    assert sorted(found) == NAMES


# ------------------------------------------------------------------ the truth is consistent
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", SEEDS)
def test_each_trace_is_one_that_replay_reads(name, seed):
    trace = make_trace(told(name, seed).document())
    assert trace.length <= 14_400


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", SEEDS)
def test_labels_agree_with_one_another(name, seed):
    document = told(name, seed).document()
    nodes = {n for g in document["fleet"] for n in g["names"]}
    allowed = document.get("expect", {}).get("disruptive")
    must = {t["node"] for t in document.get("truth", ()) if _must(t)}
    for truth in document.get("truth", ()):
        assert truth["node"] in nodes
        assert truth["from"] <= document["length"]
        assert truth.get("to", document["length"]) > truth["from"]
    if allowed == "never":
        assert not must
        assert not any(t.get("is_hardware", True) for t in document.get("truth", ()))
    elif allowed is not None:
        assert must <= set(allowed)


def _must(truth: dict) -> bool:
    return truth.get("is_hardware", True) and not truth.get("is_optional", False)


@pytest.mark.parametrize("name", NAMES)
def test_traces_where_nothing_may_be_done_say_so(name):
    document = told(name, 5).document()
    if document["kind"] in {"never_alone", "common_cause", "telemetry", "look_alike", "change"}:
        assert document.get("expect", {}).get("disruptive") is not None


@pytest.mark.parametrize("name", [n for n in NAMES if SCENARIOS[n].kind == "hardware"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_fault_can_be_seen_for_three_sweeps_before_its_trace_ends(name, seed):
    document = told(name, seed).document()
    must = [t for t in document["truth"] if _must(t)]
    assert must
    for truth in must:
        seen = truth.get("detectable_at", truth["from"])
        assert document["length"] - seen >= 2 * document["sweep"]


def test_signs_that_a_site_does_not_export_are_left_out():
    story = told("remap_failed_in_the_default_fields", 3)
    assert "health" not in story.parts
    shown = {e["metric"] for e in story.parts.get("series", ())}
    assert faults.FAILED in shown
    assert faults.DBE_TOTAL not in shown


# ------------------------------------------------------------------ shares
def test_half_evidence_is_a_fault_as_often_as_its_ratio_says():
    by_scenario = {
        "xid_74_alone": "xid_74", "pcie_replays_alone": "pcie_replays", "xid_63_alone": "xid_63",
    }  # fmt: skip
    for name, key in by_scenario.items():
        drawn = ["truth" in told(name, seed).parts for seed in range(200)]
        assert np.mean(drawn) == pytest.approx(RATIOS[key].fault, abs=0.1)


def test_each_ratio_has_a_source():
    assert all(r.source and 0.0 < r.fault < 1.0 for r in RATIOS.values())


def test_gpus_are_most_of_the_fault_mix_as_in_the_study_it_comes_from():
    total = sum(share for share, _, _ in faults.CLASS_MIX)
    network = sum(share for share, name, _ in faults.CLASS_MIX if name == "port_down")
    assert total == pytest.approx(333, abs=1)
    assert network / total == pytest.approx(42 / 333, abs=0.01)


# ------------------------------------------------------------------ noise
def test_noise_comes_at_its_base_rates():
    story = noise_story(1, "n", nodes=500, days=1.0)
    events = draw_events(np.random.default_rng(5), story.nodes, 40 * DAY, Rates())
    node_days = 500 * 40
    counted = {k: sum(e.kind is k for e in events) for k in Noise}
    for kind in Noise:
        expected = getattr(Rates(), kind.value) * node_days
        assert counted[kind] == pytest.approx(expected, abs=5 * expected**0.5)
    assert counted[Noise.APP_XID] / node_days >= 10 * 4 / 1000


def test_false_signals_come_once_in_500_gpus_and_days():
    r = Rates()
    false = r.replay + r.link_blip + r.pcie_burst + r.hot_spell + r.slowdown + r.lone_xid + r.blank
    assert false == pytest.approx(8 / 500)


def test_a_stream_of_noise_has_all_its_node_days():
    made = list(stream(1, nodes=250, days=1.5, chunk_nodes=100))
    assert sum(len(s.nodes) * s.length / DAY for s in made) == pytest.approx(375)
    assert len({s.document()["name"] for s in made}) == len(made)
    assert all(s.expect == {"disruptive": "never"} for s in made)


def test_no_noise_without_a_rate():
    story = noise_story(1, "n", nodes=10, days=1.0)
    silent = Rates().times(0.0)
    assert draw_events(np.random.default_rng(1), story.nodes, DAY, silent) == []
    only = replace(silent, replay=100.0)
    events = draw_events(np.random.default_rng(1), story.nodes, DAY, only)
    assert {e.kind for e in events} == {Noise.REPLAY}


# ------------------------------------------------------------------ the committed corpus
def test_the_corpus_is_what_the_generator_makes_of_its_seed():
    made = corpus_files()
    assert {p.name for p in FOLDER.glob("*.yaml")} == set(made), (
        "run python -m tests.traces --corpus"
    )
    for name, text in made.items():
        assert (FOLDER / name).read_text(encoding="utf-8") == text, (
            f"{name}: write the corpus again"
        )


def test_a_document_says_the_same_as_yaml():
    document = told("bad_driver", 4).document()
    assert yaml.safe_load(as_yaml(document)) == document
    assert len(parse_traces(as_yaml(document))) == 1
