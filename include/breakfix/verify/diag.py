"""`dcgmi diag -j`: what its exit status and JSON say of a node, for DCGM 3 and 4.

NVIDIA keeps no stable contract for this JSON, so it fails closed: no results, a runtime error,
every test skipped, a status nobody knows, a contradiction with the exit status: none is a pass.
Shapes: DCGM 4.6.0's result schema, and DCGM 3.3's output. Exit statuses: dcgm_structs.h, as the
shell shows them (256 + the negative status). Severities: DCGM's error table.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import msgspec

from breakfix.model import Outcome

_OK = 0
_ISOLATE = 205  # NVVS_ISOLATE_ERROR: an error of severity isolate
_ERROR = 226  # NVVS_ERROR: it ran and reports an error
_BUSY = 217  # DIAG_ALREADY_RUNNING
#: It did not run at all: bad launch, no NVVS binary (the host engine's image may lack it), killed,
#: no test available. No verdict about the hardware.
_PLUMBING = frozenset({215, 204, 203, 198})

_MONITOR, _ISOLATED, _TRIAGE, _CONFIG, _RESET = 1, 2, 4, 5, 6
_SMALLEST_FULL_LEVEL = 2  # from here on there must be more than the software checks
_SOFTWARE = "Deployment"  # the category of the software checks, which load no GPU
_KNOWN = frozenset({"PASS", "FAIL", "WARN", "SKIP"})


class DiagAdvice(StrEnum):
    """What the result asks for next; the worst error decides."""

    RETURN = "return"
    WATCH = "watch"  # only errors of severity monitor
    HARDWARE = "hardware"  # isolate: open a vendor case with this evidence
    RESET_AGAIN = "reset_again"
    REBOOT = "reboot"  # triage: reboot or reseat, and run a longer diag
    SOFTWARE = "software"  # config: fix the software, no hardware ticket
    RETRY = "retry"  # it did not run, or another one did: neither a pass nor a verdict
    LOOK = "look"  # a person must look: nothing can be concluded


#: Worst first.
_BY_SEVERITY = (
    (_ISOLATED, DiagAdvice.HARDWARE),
    (_RESET, DiagAdvice.RESET_AGAIN),
    (_TRIAGE, DiagAdvice.REBOOT),
    (_CONFIG, DiagAdvice.SOFTWARE),
    (_MONITOR, DiagAdvice.WATCH),
)


@dataclass(frozen=True, slots=True)
class DiagError:
    """One error of a test on one entity (`GPU 3`, or "" for the node)."""

    test: str
    entity: str
    text: str
    error_id: int | None = None
    severity: int | None = None


@dataclass(frozen=True, slots=True)
class DiagSummary:
    """What was run and found. Counts are of tests; `text` is one sentence."""

    text: str
    advice: DiagAdvice
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    errors: tuple[DiagError, ...] = ()


class _Warning(msgspec.Struct):
    warning: str = ""
    error_id: int | None = None
    error_severity: int | None = None


class _Result(msgspec.Struct):
    status: str
    entity_group: str = ""
    entity_id: int | None = None
    gpu_ids: str = ""
    gpu_id: str | int = ""
    warnings: list[_Warning] = []

    @property
    def entity(self) -> str:
        if self.entity_id is not None:
            return f"{self.entity_group} {self.entity_id}".strip()
        gpu = self.gpu_ids or self.gpu_id
        return f"GPU {gpu}" if gpu != "" else ""

    @property
    def gpus(self) -> frozenset[int]:
        """The GPUs that this result is about; none for a result of another entity."""
        if self.entity_id is not None:
            return frozenset({self.entity_id}) if self.entity_group == "GPU" else frozenset()
        listed = str(self.gpu_ids or self.gpu_id).split(",")
        return frozenset(int(g) for g in listed if g.strip().isdecimal())


class _Test(msgspec.Struct):
    name: str
    results: list[_Result] = []
    test_summary: _Result | None = None

    def statuses(self) -> set[str]:
        summary = [self.test_summary] if self.test_summary is not None else []
        return {r.status.upper() for r in (*self.results, *summary)}


class _Category(msgspec.Struct):
    category: str
    tests: list[_Test]


class _Run(msgspec.Struct):
    test_categories: list[_Category] = []
    runtime_error: str | None = None


class _Document(msgspec.Struct):
    dcgm4: _Run | None = msgspec.field(default=None, name="DCGM Diagnostic")
    dcgm3: _Run | None = msgspec.field(default=None, name="DCGM GPU Diagnostic")


def diag_outcome(
    text: str | bytes,
    exit_code: int | None,
    *,
    level: int,
    gpus: int,
    tests: Collection[str] = (),
) -> tuple[Outcome, DiagSummary]:
    """(outcome, summary) of one run at `level` from its log and the exit code of its container.

    Text before the JSON is skipped. Fixed needs exit code 0 and a pass of every test that ran, or
    errors of severity monitor only; and for each of the node's `gpus` GPUs a pass of its own of
    every one of `tests` (none named: of any that counts at this level). A skip is no pass.
    """
    if exit_code is None:
        return _cannot_tell("the exit status of the diag is not known", DiagAdvice.RETRY)
    if exit_code == _BUSY:
        return _cannot_tell("another diag was running", DiagAdvice.RETRY)
    if exit_code in _PLUMBING:
        return _cannot_tell(f"the diag did not run (exit status {exit_code})", DiagAdvice.RETRY)
    if exit_code not in (_OK, _ERROR, _ISOLATE):
        return _cannot_tell(f"the diag did not run (exit status {exit_code})")
    run = _parsed(text)
    if isinstance(run, str):
        return _unreadable(run, exit_code)
    if run.runtime_error is not None:
        return _cannot_tell(f"the diag could not run: {run.runtime_error[:200]}")
    return _judged(run, exit_code, _Wanted(level, gpus, frozenset(map(_plain, tests))))


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a run must have exercised."""

    level: int
    gpus: int
    tests: frozenset[str]

    @property
    def is_full(self) -> bool:
        return self.level >= _SMALLEST_FULL_LEVEL


def _plain(test: str) -> str:
    """DCGM 3 writes `Memory Bandwidth`, DCGM 4 `memory_bandwidth`."""
    return test.strip().casefold().replace(" ", "_")


def _cannot_tell(text: str, advice: DiagAdvice = DiagAdvice.LOOK) -> tuple[Outcome, DiagSummary]:
    return Outcome.CANNOT_TELL, DiagSummary(text, advice)


def _unreadable(why: str, exit_code: int) -> tuple[Outcome, DiagSummary]:
    if exit_code == _ISOLATE:
        text = f"exit status {exit_code}: an error that isolates the node, but {why}"
        return Outcome.NOT_FIXED, DiagSummary(text, DiagAdvice.HARDWARE)
    return _cannot_tell(f"{why} (exit status {exit_code})")


def _parsed(text: str | bytes) -> _Run | str:
    """The run, or what is wrong with the text."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    start = text.find("{")
    if start < 0:
        return "there is no JSON in the log"
    try:
        value: Any = json.JSONDecoder().raw_decode(text, start)[0]
        document = msgspec.convert(value, _Document)
    except (ValueError, RecursionError, msgspec.MsgspecError) as e:
        return f"the JSON cannot be read: {str(e)[:200]}"
    if (document.dcgm4 is None) == (document.dcgm3 is None):
        return "the JSON is no result of a diag"
    return document.dcgm4 or document.dcgm3 or _Run()


def _judged(run: _Run, exit_code: int, wanted: _Wanted) -> tuple[Outcome, DiagSummary]:
    tests = [(c.category, t) for c in run.test_categories for t in c.tests]
    odd = sorted({s for _, t in tests for s in t.statuses()} - _KNOWN)
    if odd:
        return _cannot_tell(f"a status nobody knows: {odd[0][:50]}")
    failed = [t for _, t in tests if t.statuses() & {"FAIL", "WARN"}]
    passed = [(c, t) for c, t in tests if "PASS" in t.statuses() and t not in failed]
    errors = tuple(e for _, t in tests for e in _errors(t))
    seen = DiagSummary(
        text="",
        advice=DiagAdvice.LOOK,
        passed=len(passed),
        failed=len(failed),
        skipped=len(tests) - len(passed) - len(failed),
        errors=errors,
    )
    untested = _untested(tests, wanted)
    if failed or errors or exit_code == _ISOLATE:
        return _with_errors(exit_code, seen, untested)
    missing = _not_exercised([c for c, _ in passed], exit_code, wanted) or untested
    if missing:
        return Outcome.CANNOT_TELL, replace(seen, text=missing)
    text = f"{seen.passed} tests passed, {seen.skipped} skipped"
    return Outcome.FIXED, replace(seen, text=text, advice=DiagAdvice.RETURN)


def _not_exercised(passed_categories: list[str], exit_code: int, wanted: _Wanted) -> str:
    if not passed_categories:
        return "no test passed: there were none, or all were skipped"
    if wanted.is_full and set(passed_categories) == {_SOFTWARE}:
        return f"a diag of level {wanted.level} exercised nothing but the software checks"
    if exit_code != _OK:
        return f"exit status {exit_code}, although no test failed"
    return ""


def _untested(tests: list[tuple[str, _Test]], wanted: _Wanted) -> str:
    """Which GPUs no test passed that counts at this level; empty when each has its pass.

    Passing elsewhere proves nothing: a GPU that was skipped, or that is not in the list at all, may
    be the very one that was repaired.
    """
    if wanted.gpus <= 0:
        return "the number of GPUs to be tested is not known"
    counted = [t for category, t in tests if not wanted.is_full or category != _SOFTWARE]
    seen = {g for _, t in tests for r in t.results for g in r.gpus}
    if not wanted.is_full and not seen and any(_is_pass(t.test_summary) for t in counted):
        return ""  # the software checks may be told of the node as a whole
    passed = _gpus_passed(counted)
    if seen - passed:
        return f"GPU {_listed(seen - passed)} passed no test that counts"
    if len(passed) < wanted.gpus:
        return f"only {len(passed)} of {wanted.gpus} GPUs were tested"
    for test in sorted(wanted.tests):
        left = seen - _gpus_passed([t for t in counted if _plain(t.name) == test])
        if left:
            return f"test {test} was not passed on GPU {_listed(left)}: skipped, or not run"
    return ""


def _gpus_passed(tests: list[_Test]) -> set[int]:
    return {g for t in tests for r in t.results if _is_pass(r) or _is_remark(r) for g in r.gpus}


def _is_remark(result: _Result) -> bool:
    """It was exercised, and all that was found is of severity monitor."""
    found = [w.error_severity for w in result.warnings]
    return result.status.upper() in {"FAIL", "WARN"} and set(found) == {_MONITOR}


def _listed(gpus: set[int]) -> str:
    return ", ".join(map(str, sorted(gpus)))


def _is_pass(summary: _Result | None) -> bool:
    return summary is not None and summary.status.upper() == "PASS"


def _with_errors(exit_code: int, seen: DiagSummary, untested: str) -> tuple[Outcome, DiagSummary]:
    severities = {e.severity for e in seen.errors}
    known = {s for s, _ in _BY_SEVERITY}
    advice = next((a for s, a in _BY_SEVERITY if s in severities), DiagAdvice.LOOK)
    if exit_code == _ISOLATE:
        advice = DiagAdvice.HARDWARE
    elif severities - known and advice is DiagAdvice.WATCH:
        advice = DiagAdvice.LOOK  # an error without a severity is no small one
    text = "; ".join(f"{e.entity or 'node'}: {e.text}" for e in seen.errors[:3])
    summary = replace(seen, text=text or "a test failed and names no error", advice=advice)
    is_small = advice is DiagAdvice.WATCH and seen.passed > 0
    if is_small and untested:
        return _cannot_tell(f"{summary.text}; {untested}")
    return (Outcome.FIXED if is_small else Outcome.NOT_FIXED), summary


def _errors(test: _Test) -> Iterator[DiagError]:
    """Those of the entities; those of the summary only where no entity names any."""
    found = [r for r in test.results if r.warnings]
    if not found and test.test_summary is not None:
        found = [test.test_summary]
    for result in found:
        for w in result.warnings:
            text = w.warning[:300]
            yield DiagError(test.name, result.entity, text, w.error_id, w.error_severity)
