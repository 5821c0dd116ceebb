"""How often an automation was right, against the labels of the traces. Pure.

Right: a call that takes a node out is right while a fault for which that is right (`is_hardware`)
is on it, and for two sweeps more, the time in which telemetry forgets. Episode: all disruptive
calls on one node of one trace; it is right when its first call is, because that one would have
acted.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from breakfix.model import FailureClass
from breakfix.replay.outcome import OURS, Call, Replayed
from breakfix.replay.trace import Trace, Truth

#: Kinds of traces in which nothing may be taken out but what a truth or `expect` allows.
NEVER_KINDS = frozenset({"never_alone", "common_cause", "telemetry"})
NOISE_KINDS = frozenset({"noise"})
SWEEPS = 2  # a fault must be found within so many sweeps
BINS = 10
_CONFIDENCE = 0.95  # of the Poisson interval


@dataclass(frozen=True, slots=True)
class Share:
    """So many of so many."""

    hits: int
    total: int

    @property
    def value(self) -> float | None:
        """0..1; None of nothing."""
        return self.hits / self.total if self.total else None


@dataclass(frozen=True, slots=True)
class Bin:
    """Claims of one range of confidence, and how many were true."""

    low: float
    high: float
    claims: int
    mean_confidence: float
    share_right: float


@dataclass(frozen=True, slots=True)
class Reliability:
    """Is what is said with 0.9 true nine times in ten? `ece`: the mean distance, by claims."""

    bins: tuple[Bin, ...]
    claims: int
    ece: float | None


@dataclass(frozen=True, slots=True)
class Rate:
    """Events per 10,000 node-days with the exact 95 % Poisson interval."""

    events: int
    node_days: float
    rate: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Wrong:
    """One thing that went wrong, for people."""

    trace: str
    kind: str
    what: str  # wrong_action, missed, wrong_class, expectation
    node: str
    at: float | None
    said: str
    truth: str
    reason: str


@dataclass(frozen=True, slots=True)
class Detection:
    """One hardware fault: how long it took. Delays in sweeps; None: never."""

    trace: str
    truth: Truth
    delay: float | None  # since it was detectable
    delay_from_onset: float | None
    call: Call | None  # the first that would have acted


@dataclass(frozen=True, slots=True)
class Score:
    """All numbers of one automation."""

    who: str
    precision_episodes: Share
    precision_calls: Share
    recall: Share  # within two sweeps of being detectable
    recall_onset: Share  # within two sweeps of the onset
    recall_ever: Share
    median_delay: float | None
    p95_delay: float | None
    right_class: Share
    confusion: Mapping[tuple[str, str], int]  # (truth, said) -> episodes
    reliability: Reliability
    reliability_disruptive: Reliability
    noise: Rate
    never: Share  # wrongful disruptive calls in the traces where none may be
    expectations: Share
    wrongs: tuple[Wrong, ...]


def score(replayed: Sequence[Replayed], who: str = OURS) -> Score:
    """The numbers of one automation over all traces."""
    episodes = [e for r in replayed for e in _episodes(r, who)]
    calls = [(r.trace, c) for r in replayed for c in r.calls[who] if c.is_disruptive]
    found = [d for r in replayed for d in _detections(r, who)]
    right_calls = [(t, c) for t, c in calls if is_right(t, c)]
    named = [(t, c) for t, c in episodes if is_right(t, c) and _classes(t, c)]
    delays = [d.delay for d in found if d.delay is not None]
    never = [(t, c) for t, c in calls if _may_never(t)]
    broken, asked = _expectations(replayed) if who == OURS else ([], 0)
    return Score(
        who=who,
        precision_episodes=Share(sum(is_right(t, c) for t, c in episodes), len(episodes)),
        precision_calls=Share(len(right_calls), len(calls)),
        recall=_within(found, lambda d: d.delay),
        recall_onset=_within(found, lambda d: d.delay_from_onset),
        recall_ever=Share(len(delays), len(found)),
        median_delay=median(delays) if delays else None,
        p95_delay=_quantile(delays, 0.95),
        right_class=Share(sum(c.failure_class in _classes(t, c) for t, c in named), len(named)),
        confusion=_confusion(named),
        reliability=reliability(_claims(replayed, who, is_disruptive=False)),
        reliability_disruptive=reliability(_claims(replayed, who, is_disruptive=True)),
        noise=_noise(replayed, episodes),
        never=Share(sum(not is_right(t, c) for t, c in never), len(never)),
        expectations=Share(asked - len(broken), asked),
        wrongs=tuple(_wrongs(episodes, found, named)) + tuple(broken),
    )


# --------------------------------------------------------------------------- right or wrong


def is_right(trace: Trace, call: Call) -> bool:
    """Whether taking the node out then would have been right."""
    if any(t.is_hardware for t in active(trace, call)):
        return True
    allowed = trace.expect.disruptive
    return isinstance(allowed, tuple) and call.node in allowed


def active(trace: Trace, call: Call) -> list[Truth]:
    """What is wrong with the node then, or was up to two sweeps ago."""
    linger = SWEEPS * trace.sweep
    return [
        t
        for t in trace.truth
        if t.node == call.node
        and t.start <= call.at
        and call.at <= (math.inf if t.end is None else t.end + linger)
    ]


def _classes(trace: Trace, call: Call) -> frozenset[FailureClass]:
    return frozenset(c for t in active(trace, call) if t.is_hardware for c in t.classes)


def _may_never(trace: Trace) -> bool:
    return trace.kind in NEVER_KINDS or trace.expect.disruptive == "never"


def _episodes(replayed: Replayed, who: str) -> list[tuple[Trace, Call]]:
    """The first disruptive call of each node."""
    first: dict[str, Call] = {}
    for call in sorted(replayed.calls[who], key=lambda c: c.at):
        if call.is_disruptive:
            first.setdefault(call.node, call)
    return [(replayed.trace, c) for _, c in sorted(first.items())]


# --------------------------------------------------------------------------- time to detect


def _detections(replayed: Replayed, who: str) -> list[Detection]:
    """One for each hardware fault, unless the trace ends before two sweeps could have found it."""
    trace = replayed.trace
    by_node: dict[str, list[Call]] = defaultdict(list)
    for call in replayed.calls[who]:
        if call.is_disruptive:
            by_node[call.node].append(call)
    return [
        _detection(trace, truth, by_node[truth.node])
        for truth in trace.truth
        if truth.is_hardware
        and not truth.is_optional
        and _detectable(truth) + SWEEPS * trace.sweep <= trace.length
    ]


def _detection(trace: Trace, truth: Truth, calls: Iterable[Call]) -> Detection:
    end = math.inf if truth.end is None else truth.end + SWEEPS * trace.sweep
    during = [c for c in calls if truth.start <= c.at <= end]
    first = min(during, key=lambda c: c.at, default=None)
    if first is None:
        return Detection(trace.name, truth, None, None, None)
    delay = max(0.0, first.at - max(_detectable(truth), 0.0)) / trace.sweep
    onset = (first.at - max(truth.start, 0.0)) / trace.sweep
    return Detection(trace.name, truth, delay, onset, first)


def _detectable(truth: Truth) -> float:
    return truth.start if truth.detectable_at is None else truth.detectable_at


def _within(found: Sequence[Detection], delay: Callable[[Detection], float | None]) -> Share:
    hits = sum((d := delay(f)) is not None and d <= SWEEPS + 1e-9 for f in found)
    return Share(hits, len(found))


def _quantile(values: Sequence[float], share: float) -> float | None:
    """The nearest rank: a value that occurred."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


# --------------------------------------------------------------------------- classes and confidence


def _confusion(named: Iterable[tuple[Trace, Call]]) -> Mapping[tuple[str, str], int]:
    pairs = Counter(
        (_true_class(trace, call), str(call.failure_class or "none")) for trace, call in named
    )
    return dict(sorted(pairs.items()))


def _true_class(trace: Trace, call: Call) -> str:
    classes = _classes(trace, call)
    if call.failure_class in classes:
        return str(call.failure_class)
    return str(min(t.failure_class for t in active(trace, call) if t.is_hardware))


def _claims(
    replayed: Sequence[Replayed], who: str, *, is_disruptive: bool
) -> list[tuple[float, bool]]:
    """(confidence, was the class true) of every call that claims a class."""
    return [
        (c.confidence, any(c.failure_class in t.classes for t in active(r.trace, c)))
        for r in replayed
        for c in r.calls[who]
        if c.failure_class is not None
        and c.confidence > 0
        and (c.is_disruptive or not is_disruptive)
    ]


def reliability(claims: Sequence[tuple[float, bool]]) -> Reliability:
    """Ten bins of equal width, and the expected calibration error."""
    held: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    for confidence, is_true in claims:
        held[min(BINS - 1, int(confidence * BINS))].append((confidence, is_true))
    bins = tuple(_bin(number, held[number]) for number in sorted(held))
    distance = sum(b.claims * abs(b.mean_confidence - b.share_right) for b in bins)
    return Reliability(bins, len(claims), distance / len(claims) if claims else None)


def _bin(number: int, claims: Sequence[tuple[float, bool]]) -> Bin:
    size = len(claims)
    return Bin(
        number / BINS,
        (number + 1) / BINS,
        size,
        sum(c for c, _ in claims) / size,
        sum(t for _, t in claims) / size,
    )


# --------------------------------------------------------------------------- rates


def _noise(replayed: Sequence[Replayed], episodes: Iterable[tuple[Trace, Call]]) -> Rate:
    """False quarantines in the traces of base-rate noise."""
    days = sum(r.trace.node_days for r in replayed if r.trace.kind in NOISE_KINDS)
    events = sum(t.kind in NOISE_KINDS and not is_right(t, c) for t, c in episodes)
    return rate(events, days)


def rate(events: int, node_days: float) -> Rate:
    """Per 10,000 node-days, with the exact (chi-squared) interval of a Poisson count."""
    if node_days <= 0:
        return Rate(events, node_days, None, None, None)
    low, high = poisson_interval(events)
    unit = 10_000 / node_days
    return Rate(events, node_days, events * unit, low * unit, high * unit)


def poisson_interval(events: int) -> tuple[float, float]:
    """The exact two-sided 95 % interval of a Poisson count's mean (Garwood 1936)."""
    from scipy.stats import chi2  # half a second: only who scores pays it

    tail = (1 - _CONFIDENCE) / 2
    low = float(chi2.ppf(tail, 2 * events)) / 2 if events else 0.0
    return low, float(chi2.ppf(1 - tail, 2 * events + 2)) / 2


# --------------------------------------------------------------------------- where it went wrong


def _wrongs(
    episodes: Iterable[tuple[Trace, Call]],
    found: Iterable[Detection],
    named: Iterable[tuple[Trace, Call]],
) -> Iterable[Wrong]:
    for trace, call in episodes:
        if not is_right(trace, call):
            truth = ", ".join(str(t.failure_class) for t in active(trace, call)) or "no fault"
            yield _wrong(trace, "wrong_action", call, truth)
    for missed in found:
        late = missed.delay is None or missed.delay > SWEEPS + 1e-9
        if late:
            yield _missed(missed)
    for trace, call in named:
        classes = _classes(trace, call)
        if call.failure_class not in classes:
            yield _wrong(trace, "wrong_class", call, ", ".join(sorted(classes)))


def _wrong(trace: Trace, what: str, call: Call, truth: str) -> Wrong:
    said = f"{call.failure_class}, {call.action} ({call.confidence:.2f})"
    return Wrong(trace.name, trace.kind, what, call.node, call.at, said, truth, call.reason)


def _missed(missed: Detection) -> Wrong:
    truth = f"{missed.truth.failure_class} from {missed.truth.start:.0f} s"
    if missed.delay is None:
        said = "never recommended"
    else:
        said = f"recommended {missed.delay:.1f} sweeps after it was detectable"
    at = missed.call.at if missed.call else None
    reason = missed.call.reason if missed.call else ""
    return Wrong(missed.trace, "hardware", "missed", missed.truth.node, at, said, truth, reason)


def _expectations(replayed: Iterable[Replayed]) -> tuple[list[Wrong], int]:
    """What `expect` asks and did not come; and how much it asks."""
    broken: list[Wrong] = []
    asked = 0
    for done in replayed:
        expect, trace = done.trace.expect, done.trace
        lost = {c.node for c in done.calls[OURS] if c.failure_class is FailureClass.TELEMETRY_LOST}
        checks = [
            *((f"incident {s}", s in done.incidents, "") for s in expect.incidents or ()),
            *((f"telemetry of {n} lost", n in lost, n) for n in expect.telemetry_lost),
            *((f"{s} speaks", s in done.spoke, "") for s in expect.speak),
            *((f"{s} is silent", s not in done.spoke, "") for s in expect.silent),
        ]
        if expect.incidents == ():
            checks.append(("no incident", not done.incidents, ""))
        asked += len(checks)
        broken += [
            Wrong(trace.name, trace.kind, "expectation", node, None, "not so", what, "")
            for what, held, node in checks
            if not held
        ]
    return broken, asked
