from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breakfix.model import Outcome
from breakfix.verify import DiagAdvice, diag_outcome
from simfleet.diag import run_diag
from tests.unit.simfleet.bench import make_bench

DATA = Path(__file__).parent.parent / "data" / "diag"
FIXED, NOT_FIXED, CANNOT_TELL = Outcome.FIXED, Outcome.NOT_FIXED, Outcome.CANNOT_TELL


def recorded(name: str) -> str:
    return (DATA / f"{name}.json").read_text()


@pytest.mark.parametrize(
    ("name", "exit_code", "level", "outcome", "advice"),
    [
        pytest.param("r2_pass", 0, 2, FIXED, DiagAdvice.RETURN, id="a pass of level 2"),
        pytest.param(
            "r1_fail_pending_remap", 226, 1, NOT_FIXED, DiagAdvice.RESET_AGAIN, id="a pending remap"
        ),
        pytest.param(
            "r3_fail_memory_isolate", 205, 3, NOT_FIXED, DiagAdvice.HARDWARE, id="a bad memory"
        ),
        pytest.param(
            "r2_fail_pcie_triage", 226, 2, NOT_FIXED, DiagAdvice.REBOOT, id="a slow PCIe link"
        ),
        pytest.param("runtime_error", 226, 1, CANNOT_TELL, DiagAdvice.LOOK, id="a runtime error"),
        pytest.param(
            "runtime_error", 217, 1, CANNOT_TELL, DiagAdvice.RETRY, id="another diag runs"
        ),
        pytest.param(
            "legacy_dcgm3_fail", 205, 2, NOT_FIXED, DiagAdvice.HARDWARE, id="DCGM 3 that fails"
        ),
    ],
)
def test_tells_what_recorded_runs_say(name, exit_code, level, outcome, advice):
    told, summary = diag_outcome(recorded(name), exit_code, level=level, gpus=8)
    assert (told, summary.advice) == (outcome, advice)
    assert summary.text


def test_names_the_gpu_and_the_error():
    _, summary = diag_outcome(recorded("r3_fail_memory_isolate"), 205, level=3, gpus=8)
    (error,) = summary.errors
    assert (error.test, error.entity, error.error_id, error.severity) == ("memory", "GPU 5", 58, 2)
    assert (summary.passed, summary.failed) == (7, 1)


def passing() -> dict[str, Any]:
    value: dict[str, Any] = json.loads(recorded("r2_pass"))
    return value


def every_test(document: dict[str, Any]) -> list[dict[str, Any]]:
    run = document["DCGM Diagnostic"]
    return [t for c in run["test_categories"] for t in c["tests"]]


def with_statuses(status: str, only: str = "") -> str:
    document = passing()
    for test in every_test(document):
        if only and test["name"] != only:
            continue
        for result in (*test["results"], test["test_summary"]):
            result["status"] = status
    return json.dumps(document)


def with_severity(severity: int | None) -> str:
    document = passing()
    test = every_test(document)[-1]
    warning = {"warning": "something", "error_id": 1, "error_severity": severity}
    test["results"][0] |= {"status": "Fail", "warnings": [warning]}
    test["test_summary"] = {"status": "Fail", "warnings": [warning]}
    return json.dumps(document)


def software_only() -> str:
    document = passing()
    document["DCGM Diagnostic"]["test_categories"] = [
        c for c in document["DCGM Diagnostic"]["test_categories"] if c["category"] == "Deployment"
    ]
    return json.dumps(document)


def for_gpu(number: int, status: str, *tests: str) -> str:
    """The pass with that GPU's results of these tests changed, or left out (status "")."""
    document = passing()
    for test in every_test(document):
        for result in [r for r in test["results"] if r["entity_id"] == number]:
            if test["name"] in tests and not status:
                test["results"].remove(result)
            elif test["name"] in tests:
                result["status"] = status
    return json.dumps(document)


def dcgm3(memory: str, *, listed: str = "0,1") -> str:
    """Two GPUs; the memory test told of GPU 1 with this status."""
    results = [{"gpu_id": "0", "status": "PASS"}, {"gpu_id": 1, "status": memory}]
    categories = [
        {
            "category": "Deployment",
            "tests": [{"name": "Denylist", "results": [{"gpu_ids": listed, "status": "PASS"}]}],
        },
        {"category": "Hardware", "tests": [{"name": "memory", "results": results}]},
    ]
    return json.dumps({"DCGM GPU Diagnostic": {"test_categories": categories}})


NO_GPU_NAMED = json.dumps(
    {
        "DCGM Diagnostic": {
            "test_categories": [
                {
                    "category": "Deployment",
                    "tests": [
                        {"name": "software", "results": [], "test_summary": {"status": "Pass"}}
                    ],
                }
            ]
        }
    }
)
BEYOND_SOFTWARE = ("memory", "pcie")
ALL_TESTS = ("software", *BEYOND_SOFTWARE)


@pytest.mark.parametrize(
    ("text", "level", "gpus", "outcome"),
    [
        pytest.param(recorded("r2_pass"), 2, 8, FIXED, id="each of the eight passed"),
        pytest.param(recorded("r2_pass"), 2, 9, CANNOT_TELL, id="a ninth was not there"),
        pytest.param(recorded("r2_pass"), 2, 0, CANNOT_TELL, id="nobody knows how many there are"),
        pytest.param(for_gpu(3, "Skip", "pcie"), 2, 8, FIXED, id="one skipped one test of two"),
        pytest.param(
            for_gpu(3, "Skip", *BEYOND_SOFTWARE), 2, 8, CANNOT_TELL, id="one skipped all that count"
        ),
        pytest.param(
            for_gpu(3, "", *BEYOND_SOFTWARE), 2, 8, CANNOT_TELL, id="one is in the software checks"
        ),
        pytest.param(for_gpu(3, "", *ALL_TESTS), 2, 8, CANNOT_TELL, id="one is in no test"),
        pytest.param(for_gpu(3, "Skip", *BEYOND_SOFTWARE), 1, 8, FIXED, id="level 1 asks for less"),
        pytest.param(
            for_gpu(3, "Skip", *ALL_TESTS), 1, 8, CANNOT_TELL, id="level 1 and one only skipped"
        ),
        pytest.param(NO_GPU_NAMED, 1, 8, FIXED, id="level 1 told of the node as a whole"),
        pytest.param(NO_GPU_NAMED, 2, 8, CANNOT_TELL, id="level 2 told of the node as a whole"),
        pytest.param(dcgm3("PASS"), 2, 2, FIXED, id="DCGM 3, both passed"),
        pytest.param(dcgm3("SKIP"), 2, 2, CANNOT_TELL, id="DCGM 3, one skipped"),
        pytest.param(dcgm3("SKIP"), 1, 2, FIXED, id="DCGM 3 of level 1, both in a list"),
    ],
)
def test_each_gpu_needs_a_pass_of_its_own(text, level, gpus, outcome):
    assert diag_outcome(text, 0, level=level, gpus=gpus)[0] is outcome


def with_remark(number: int) -> str:
    """The pass, but for an error of severity monitor on that GPU."""
    document = passing()
    test = next(t for t in every_test(document) if t["name"] == "pcie")
    result = next(r for r in test["results"] if r["entity_id"] == number)
    result |= {"status": "Fail", "warnings": [{"warning": "replays", "error_severity": 1}]}
    return json.dumps(document)


@pytest.mark.parametrize(
    ("text", "exit_code", "tests", "outcome"),
    [
        pytest.param(recorded("r2_pass"), 0, BEYOND_SOFTWARE, FIXED, id="all were passed"),
        pytest.param(
            recorded("r2_pass"), 0, ("Memory", "PCIe"), FIXED, id="named as DCGM 3 names them"
        ),
        pytest.param(
            for_gpu(3, "Skip", "pcie"), 0, BEYOND_SOFTWARE, CANNOT_TELL, id="one GPU skipped one"
        ),
        pytest.param(
            for_gpu(3, "", "pcie"), 0, BEYOND_SOFTWARE, CANNOT_TELL, id="one GPU is not in one"
        ),
        pytest.param(
            with_statuses("Skip", "pcie"), 0, BEYOND_SOFTWARE, CANNOT_TELL, id="all skipped one"
        ),
        pytest.param(
            recorded("r2_pass"), 0, ("diagnostic",), CANNOT_TELL, id="a test that did not run"
        ),
        pytest.param(with_remark(3), 226, BEYOND_SOFTWARE, FIXED, id="a remark is no skip"),
    ],
)
def test_the_tests_that_policy_names_must_be_passed_by_each_gpu(text, exit_code, tests, outcome):
    assert diag_outcome(text, exit_code, level=2, gpus=8, tests=tests)[0] is outcome


@pytest.mark.parametrize("exit_code", [None, 217, 215, 204, 203, 198])
def test_what_could_not_run_may_be_tried_again_and_is_no_verdict(exit_code):
    outcome, summary = diag_outcome("", exit_code, level=2, gpus=8)
    assert (outcome, summary.advice) == (CANNOT_TELL, DiagAdvice.RETRY)


def test_a_small_error_does_not_excuse_a_gpu_that_was_not_tested():
    outcome, summary = diag_outcome(with_severity(1), 226, level=2, gpus=9)
    assert outcome is CANNOT_TELL
    assert "8 of 9" in summary.text
    assert summary.advice is DiagAdvice.LOOK


@pytest.mark.parametrize("level", [1, 2, 3, 4])
@pytest.mark.parametrize("gpus", [4, 8])
def test_a_healthy_machine_of_the_simulated_fleet_passes(gpus, level):
    exit_code, text = run_diag(make_bench(gpus=gpus).machine, level)
    assert diag_outcome(text, exit_code, level=level, gpus=gpus)[0] is FIXED


@pytest.mark.parametrize(
    ("text", "exit_code", "outcome"),
    [
        pytest.param(recorded("r2_pass"), None, CANNOT_TELL, id="nobody told the exit code"),
        pytest.param(recorded("r2_pass"), 226, CANNOT_TELL, id="a pass that exits with an error"),
        pytest.param(recorded("r2_pass"), 205, NOT_FIXED, id="a pass that exits with isolate"),
        pytest.param(recorded("r2_pass"), 1, CANNOT_TELL, id="an exit code nobody knows"),
        pytest.param(recorded("r2_pass"), 137, CANNOT_TELL, id="a container that was killed"),
        pytest.param(recorded("r2_pass"), 204, CANNOT_TELL, id="an image without the tests"),
        pytest.param(recorded("r2_pass")[:-400], 0, CANNOT_TELL, id="a log that was cut"),
        pytest.param("noise\n" + recorded("r2_pass"), 0, FIXED, id="a line before the JSON"),
        pytest.param(
            recorded("r2_fail_pcie_triage"), 0, NOT_FIXED, id="a failure that exits with 0"
        ),
        pytest.param("", 0, CANNOT_TELL, id="an empty log"),
        pytest.param("", 205, NOT_FIXED, id="an empty log, but the status isolates"),
        pytest.param("{}", 0, CANNOT_TELL, id="an empty object"),
        pytest.param('{"DCGM Diagnostic": {}}', 0, CANNOT_TELL, id="a run without tests"),
        pytest.param('{"DCGM Diagnostic": null}', 0, CANNOT_TELL, id="a run that is null"),
        pytest.param(
            '{"DCGM Diagnostic": {"runtime_error": ""}}', 0, CANNOT_TELL, id="an empty error"
        ),
        pytest.param(with_statuses("Skip"), 0, CANNOT_TELL, id="every test skipped"),
        pytest.param(with_statuses("Skip", "pcie"), 0, FIXED, id="one test skipped"),
        pytest.param(with_statuses("Fine"), 0, CANNOT_TELL, id="a status nobody knows"),
        pytest.param(with_statuses("Warn", "pcie"), 0, NOT_FIXED, id="a warning is a failure"),
        pytest.param(software_only(), 0, CANNOT_TELL, id="level 2 that ran only level 1"),
        pytest.param(with_severity(1), 226, FIXED, id="an error that only wants watching"),
        pytest.param(with_severity(5), 226, NOT_FIXED, id="a wrong configuration"),
        pytest.param(with_severity(None), 226, NOT_FIXED, id="an error without a severity"),
        pytest.param(with_severity(99), 226, NOT_FIXED, id="a severity nobody knows"),
        pytest.param("[" * 100_000, 0, CANNOT_TELL, id="no object at all"),
        pytest.param('{"a":' * 100_000, 0, CANNOT_TELL, id="nesting without end"),
    ],
)
def test_fails_closed(text, exit_code, outcome):
    assert diag_outcome(text, exit_code, level=2, gpus=8)[0] is outcome


@given(st.binary(), st.sampled_from([None, 0, 1, 198, 203, 204, 205, 215, 217, 226]))
def test_arbitrary_bytes_are_never_a_pass(data, exit_code):
    outcome, summary = diag_outcome(data, exit_code, level=2, gpus=8)
    assert outcome is not FIXED
    assert summary.advice not in (DiagAdvice.RETURN, DiagAdvice.WATCH)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


@given(JSON, st.sampled_from(["DCGM Diagnostic", "DCGM GPU Diagnostic"]))
def test_arbitrary_json_under_the_right_key_is_never_a_pass(value, key):
    assert diag_outcome(json.dumps({key: value}), 0, level=2, gpus=8)[0] is not FIXED


@given(st.data())
def test_a_recorded_pass_with_one_value_broken_is_not_worse_than_unclear(data):
    document = copy.deepcopy(passing())
    test = data.draw(st.sampled_from(every_test(document)))
    result = data.draw(st.sampled_from(test["results"]))
    result["status"] = data.draw(st.text(max_size=6) | st.none() | st.integers())
    if str(result["status"]).upper() in ("PASS", "SKIP"):
        return
    assert diag_outcome(json.dumps(document), 0, level=2, gpus=8)[0] is not FIXED
