"""What two cohorts served, from Prometheus. What is absent, no number or in doubt is unknown."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from breakfix.cohorts import Cohort, Evidence, Heard, MetricValues, SourceTraffic, Traffic
from breakfix.observe.canary.places import Places, Pods, placing
from breakfix.observe.canary.queries import fill
from breakfix.observe.fleet import run
from breakfix.observe.labels import printable
from breakfix.policy_canary import BusinessMetric, CanaryRules, RequestSource
from breakfix.ports import Metrics, QueryResult, Sample

Answers = Mapping[str, QueryResult | str]
_BENIGN = "PromQL info:"


@dataclass(frozen=True, slots=True)
class Asked:
    """Two cohorts, one window, and the rules to read them by."""

    canary: Cohort
    stable: Cohort
    rules: CanaryRules
    window_s: float

    @property
    def cohorts(self) -> tuple[Cohort, Cohort]:
        return self.canary, self.stable

    def query(self, text: str, cohort: Cohort, *extra: str) -> str:
        by = dict.fromkeys((*self.rules.by, *placing(cohort), *extra))
        return fill(
            text, by=by, cohort=cohort, window_s=self.window_s, replicas=self.rules.replicas
        )


def read_evidence(metrics: Metrics, asked: Asked, *, at: datetime, bound: Pods) -> Evidence:
    """The requests and business metrics of both cohorts in the window that ends at `at`.

    `bound`: (namespace, pod) -> node as the API server knows it; series of pods that are gone since
    are placed by kube_pod_info. A query that fails is the trouble of its source, not an error.
    """
    answers = run(metrics, _queries(asked), at=at)
    places, odd = _places(asked, answers, bound)
    return Evidence(
        at=at,
        window_s=asked.window_s,
        canary=asked.canary,
        stable=asked.stable,
        sources=tuple(
            _source(name, rule, asked, answers, places)
            for name, rule in sorted(asked.rules.sources.items())
        ),
        metrics=tuple(_metric(rule, asked, answers, places) for rule in asked.rules.metrics),
        warnings=odd,
    )


def _queries(asked: Asked) -> Iterable[str]:
    for cohort in asked.cohorts:
        for rule in asked.rules.sources.values():
            yield from _texts(rule, asked, cohort).values()
        for metric in asked.rules.metrics:
            yield asked.query(metric.query, cohort)
    if _needs_places(asked):
        yield _pods_query(asked)


def _needs_places(asked: Asked) -> bool:
    return bool(asked.rules.pods) and any(c.nodes is not None for c in asked.cohorts)


def _pods_query(asked: Asked) -> str:
    return asked.query(asked.rules.pods, Cohort("every pod"))


def _texts(rule: RequestSource, asked: Asked, cohort: Cohort) -> dict[str, str]:
    """The source's queries for that cohort, by what they tell."""
    wanted = {"requests": rule.requests, "errors": rule.errors, "successes": rule.successes}
    return {name: asked.query(text, cohort) for name, text in wanted.items() if text} | (
        {"latency": asked.query(rule.latency, cohort, "le")} if rule.latency else {}
    )


def _places(asked: Asked, answers: Answers, bound: Pods) -> tuple[Places, tuple[str, ...]]:
    nodes = frozenset[str]().union(*(c.nodes or () for c in asked.cohorts))
    if not _needs_places(asked):
        return Places(bound, nodes), ()
    answer = answers[_pods_query(asked)]
    if trouble := trouble_of(answer):
        return Places(bound, nodes), (f"pods that are gone could not be placed: {trouble}",)
    samples = answer.samples if isinstance(answer, QueryResult) else ()
    return Places.of(bound, samples, nodes)


def trouble_of(answer: QueryResult | str) -> str:
    """Why the answer cannot be used; "" when it can. A partial answer cannot."""
    if isinstance(answer, str):
        return printable(answer)
    serious = [w for w in answer.warnings if not w.startswith(_BENIGN)]
    return f"partial answer: {printable(serious[0])}" if serious else ""


def _source(
    name: str, rule: RequestSource, asked: Asked, answers: Answers, places: Places
) -> SourceTraffic:
    texts = {c: _texts(rule, asked, c) for c in asked.cohorts}
    wanted = [answers[q] for queries in texts.values() for q in queries.values()]
    trouble = next((t for a in wanted if (t := trouble_of(a))), "")
    if trouble:
        return SourceTraffic(name, has_latency=bool(rule.latency), trouble=trouble)
    (canary, heard), (stable, stable_heard) = (
        _traffic({k: _samples(answers[q]) for k, q in texts[c].items()}, rule, c, places)
        for c in asked.cohorts
    )
    has_latency = any(u.buckets or "latency" in u.unclear for u in (*canary, *stable))
    return SourceTraffic(
        name,
        canary,
        stable,
        has_latency=has_latency,
        canary_heard=heard,
        stable_heard=stable_heard,
    )


def _samples(answer: QueryResult | str) -> Sequence[Sample]:
    return answer.samples if isinstance(answer, QueryResult) else ()


def _traffic(
    told: Mapping[str, Sequence[Sample]], rule: RequestSource, cohort: Cohort, places: Places
) -> tuple[tuple[Traffic, ...], Heard]:
    """A unit whose requests are no number is named as such; other numbers of it become unknown."""
    requests, bad = _sums(told["requests"], cohort, places)
    errors, bad_errors = _sums(told["errors"], cohort, places)
    successes, bad_successes = _sums(told.get("successes", ()), cohort, places)
    buckets, bad_buckets = _buckets(told.get("latency", ()), rule.latency_unit_s, cohort, places)
    unclear = {"successes": bad_successes, "latency": bad_buckets}
    units = tuple(
        Traffic(
            unit,
            count,
            # A series of errors is often born with the first one: none beside requests is none.
            errors=None if unit in bad_errors else errors.get(unit, 0.0),
            successes=None if unit in bad_successes else successes.get(unit),
            buckets=buckets.get(unit, ()),
            unclear=frozenset(what for what, of in unclear.items() if unit in of),
        )
        for unit, count in sorted(requests.items())
        if unit not in bad
    )
    seen = {places.unit_of(s.labels, cohort) for samples in told.values() for s in samples}
    return units, Heard(frozenset(seen - {""}), frozenset(bad))


def _sums(
    samples: Iterable[Sample], cohort: Cohort, places: Places
) -> tuple[dict[str, float], set[str]]:
    """(sum by unit, units with something that is no count)."""
    sums: dict[str, float] = defaultdict(float)
    bad: set[str] = set()
    for sample in samples:
        unit = places.unit_of(sample.labels, cohort)
        if not unit:
            continue
        if not (math.isfinite(sample.value) and sample.value >= 0):
            bad.add(unit)
            continue
        sums[unit] += sample.value
    return dict(sums), bad


def _buckets(
    samples: Iterable[Sample], unit_s: float, cohort: Cohort, places: Places
) -> tuple[dict[str, tuple[tuple[float, float], ...]], set[str]]:
    """Cumulative counts by unit, at the bounds that all series of the unit have.

    With them the units with a series that is no count; it is left out.
    """
    series: dict[str, dict[tuple[tuple[str, str], ...], dict[float, float]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for sample in samples:
        unit = places.unit_of(sample.labels, cohort)
        bound = _bound(sample.labels.get("le", ""), unit_s)
        if not unit or bound is None:
            continue
        key = tuple(sorted((k, v) for k, v in sample.labels.items() if k != "le"))
        series[unit][key][bound] = sample.value
    bad = {u for u, parts in series.items() if not all(map(_is_whole, parts.values()))}
    return {unit: _merged(list(parts.values())) for unit, parts in series.items()}, bad


def _bound(text: str, unit_s: float) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return None if math.isnan(value) else value * unit_s


def _is_whole(part: Mapping[float, float]) -> bool:
    return all(math.isfinite(n) and n >= 0 for n in part.values())


def _merged(parts: list[dict[float, float]]) -> tuple[tuple[float, float], ...]:
    whole = [p for p in parts if _is_whole(p)]
    if not whole:
        return ()
    bounds = sorted(set.intersection(*(set(p) for p in whole)))
    return tuple((b, sum(p[b] for p in whole)) for b in bounds)


def _metric(rule: BusinessMetric, asked: Asked, answers: Answers, places: Places) -> MetricValues:
    found = [answers[asked.query(rule.query, c)] for c in asked.cohorts]
    trouble = next((t for a in found if (t := trouble_of(a))), "")
    if trouble:
        return MetricValues(rule.name, trouble=trouble)
    (canary, heard), (stable, stable_heard) = (
        _means(_samples(a), c, places) for a, c in zip(found, asked.cohorts, strict=True)
    )
    return MetricValues(rule.name, canary, stable, canary_heard=heard, stable_heard=stable_heard)


def _means(
    samples: Iterable[Sample], cohort: Cohort, places: Places
) -> tuple[dict[str, float], Heard]:
    """A node's value is the mean of its pods'; it is unknown, too, where one of them is."""
    values: dict[str, list[float]] = defaultdict(list)
    unknown = set()
    for sample in samples:
        unit = places.unit_of(sample.labels, cohort)
        if unit and math.isfinite(sample.value):
            values[unit].append(sample.value)
        elif unit:
            unknown.add(unit)
    means = {unit: math.fsum(vs) / len(vs) for unit, vs in sorted(values.items())}
    return means, Heard(frozenset(means) | unknown, frozenset(unknown))
