"""What a case expects beside what was judged. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from breakfix.model import Finding, Incident, Verdict
from breakfix.rulebook.cases import NONE, Expect, Expected, Range
from breakfix.rulebook.partners import is_proven


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is not as expected."""

    node: str
    what: str
    expected: str
    got: str

    def __str__(self) -> str:
        where = f"{self.node}: " if self.node else ""
        return f"{where}{self.what}: expected {self.expected}, got {self.got}"


def problems(
    expect: Expect, first: str, verdicts: Mapping[str, Verdict], incidents: Iterable[Incident]
) -> Iterator[Problem]:
    """All that is not as expected; `first` is the node that the case speaks of."""
    wanted: dict[str, Expected] = {first: expect, **expect.nodes}
    for node, expected in wanted.items():
        verdict = verdicts.get(node)
        if verdict is None:
            yield Problem(node, "verdict", "one", f"none: the nodes are {', '.join(verdicts)}")
            continue
        label = node if len(wanted) > 1 else ""
        yield from (
            Problem(label, what, want, got) for what, want, got in _of_node(expected, verdict)
        )
    if expect.incidents is not None:
        found = sorted(i.scope for i in incidents)
        if found != sorted(expect.incidents):
            yield Problem("", "incidents", _listed(expect.incidents), _listed(found))


Difference = tuple[str, str, str]


def _of_node(expected: Expected, verdict: Verdict) -> Iterator[Difference]:
    pairs = (
        ("class", expected.failure_class, verdict.failure_class or NONE),
        ("action", expected.action, verdict.recommended_action),
        ("proven", expected.is_proven, is_proven(verdict)),
        ("refusal", expected.refusal, verdict.refusal or NONE),
        ("state", expected.state, verdict.state),
    )
    for what, want, got in pairs:
        if want is not None and want != got:
            yield what, _said(want), _said(got)
    if expected.confidence is not None and verdict.confidence not in expected.confidence:
        yield "confidence", str(expected.confidence), f"{verdict.confidence:.4g}"
    if expected.reason and expected.reason not in verdict.reason:
        yield "reason", f"...{expected.reason}...", verdict.reason
    yield from _findings(expected, verdict.findings)
    yield from _coverage(expected, verdict)


def _findings(expected: Expected, findings: Iterable[Finding]) -> Iterator[Difference]:
    spoke: dict[str, list[float]] = {}
    for finding in findings:
        for name in {finding.signal, f"{finding.signal}:{finding.key}"}:
            spoke.setdefault(name, []).append(finding.value)
    if expected.findings is not None:
        yield from _exactly(expected.findings, spoke)
    for name in expected.speak:
        if name not in spoke:
            yield f"finding {name}", "speaks", "silent"
    for name in expected.silent:
        if name in spoke:
            yield f"finding {name}", "silent", _values(spoke[name])


def _exactly(
    wanted: Mapping[str, Range | None], spoke: Mapping[str, list[float]]
) -> Iterator[Difference]:
    for name, value in wanted.items():
        if name not in spoke:
            yield f"finding {name}", "speaks", "silent"
        elif value is not None and not any(v in value for v in spoke[name]):
            yield f"finding {name}", str(value), _values(spoke[name])
    signals = {name.partition(":")[0] for name in wanted}
    for name in sorted(spoke):
        if ":" not in name and name not in signals:
            yield f"finding {name}", "silent", _values(spoke[name])
        elif ":" in name and not name.endswith(":") and name not in wanted:
            signal = name.partition(":")[0]
            if signal in signals and signal not in wanted:
                yield f"finding {name}", "silent", _values(spoke[name])


def _coverage(expected: Expected, verdict: Verdict) -> Iterator[Difference]:
    for name in expected.unknown:
        if name not in verdict.unknown:
            yield f"signal {name}", "unknown", "known"
    for name in expected.known:
        if name in verdict.unknown:
            yield f"signal {name}", "known", "unknown"


def _said(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _values(values: Iterable[float]) -> str:
    return ", ".join(f"{v:.4g}" for v in sorted(values))


def _listed(names: Iterable[str]) -> str:
    return "[" + ", ".join(sorted(names)) + "]"
