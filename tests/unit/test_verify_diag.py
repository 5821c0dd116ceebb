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
    told, summary = diag_outcome(recorded(name), exit_code, level=level)
    assert (told, summary.advice) == (outcome, advice)
    assert summary.text


def test_names_the_gpu_and_the_error():
    _, summary = diag_outcome(recorded("r3_fail_memory_isolate"), 205, level=3)
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
    assert diag_outcome(text, exit_code, level=2)[0] is outcome


@given(st.binary(), st.sampled_from([None, 0, 1, 198, 203, 204, 205, 215, 217, 226]))
def test_arbitrary_bytes_are_never_a_pass(data, exit_code):
    outcome, summary = diag_outcome(data, exit_code, level=2)
    assert outcome is not FIXED
    assert summary.advice not in (DiagAdvice.RETURN, DiagAdvice.WATCH)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


@given(JSON, st.sampled_from(["DCGM Diagnostic", "DCGM GPU Diagnostic"]))
def test_arbitrary_json_under_the_right_key_is_never_a_pass(value, key):
    assert diag_outcome(json.dumps({key: value}), 0, level=2)[0] is not FIXED


@given(st.data())
def test_a_recorded_pass_with_one_value_broken_is_not_worse_than_unclear(data):
    document = copy.deepcopy(passing())
    test = data.draw(st.sampled_from(every_test(document)))
    result = data.draw(st.sampled_from(test["results"]))
    result["status"] = data.draw(st.text(max_size=6) | st.none() | st.integers())
    if str(result["status"]).upper() in ("PASS", "SKIP"):
        return
    assert diag_outcome(json.dumps(document), 0, level=2)[0] is not FIXED
