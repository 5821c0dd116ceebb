"""What a trace changes in a target's series: values, health watches, and telemetry that is gone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

import numpy as np

from breakfix.replay.baseline import HEALTH, Moment, Plain
from breakfix.replay.trace import Gap, Health, Series
from breakfix.replay.values import (
    GONE,
    HELD,
    MISSING,
    SENTINEL,
    Floats,
    Track,
    constant,
    nothing,
    parse_notation,
)


def change(plains: list[Plain], series: Series, moment: Moment, words: Mapping[str, str]) -> None:
    """Change, in place, the series that are meant, or add one. `words` fill in label values."""
    labels = {k: _filled(v, words) for k, v in series.labels.items()}
    meant = [p for p in plains if p.metric == series.metric and labels.items() <= p.labels.items()]
    if not meant:
        meant = [Plain(series.metric, labels, nothing(len(moment.times)))]
        plains += meant
    for plain in meant:
        plain.without = series.without
        plain.relabel = {k: _filled(v, words) for k, v in series.relabel.items()}
        plain.value_label = series.value_label or plain.value_label
        if series.values:
            _write_notation(plain.track, series, moment.times)
        _take_steps(plain.track, series, moment)


def _filled(text: str, words: Mapping[str, str]) -> str:
    for name, value in words.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def _write_notation(track: Track, series: Series, times: Floats) -> None:
    """A sample a scrape from the start on; after the last one there is none, as in rule tests."""
    start = -math.inf if series.start is None else series.start
    first = int(np.searchsorted(times, start - 1e-9))
    said = parse_notation(series.values)
    size = min(len(times) - first, len(said.values))
    track.values[first : first + size] = said.values[:size]
    track.states[first : first + size] = said.states[:size]
    track.states[first + size :] = MISSING


def _take_steps(track: Track, series: Series, moment: Moment) -> None:
    times = moment.times
    for number, step in enumerate(series.steps):
        last = number + 1 == len(series.steps)
        end = math.inf if last else series.steps[number + 1].at
        here = (times >= step.at) & (times < end)
        if step.value is None:
            track.states[here] = GONE
            continue
        values = step.value + step.rate * (times - step.at)
        if step.noise:
            dice = moment.random(f"{series.metric}/{number}")
            values += step.noise * dice.uniform(-1, 1, len(times))
        if series.how == "set":
            track.values[here] = values[here]
            track.states[here] = HELD
        elif series.how == "plus":
            track.values[here] += values[here]
        else:
            track.values[here] *= values[here]


def fail_watches(plains: list[Plain], failing: Iterable[Health], times: Floats) -> None:
    """A watch that does not pass shows its code instead of DCGM_FR_OK."""
    for health in failing:
        here = _between(times, health.start, health.end)
        for plain in plains:
            labels = plain.labels
            is_it = plain.metric == HEALTH and labels.get("health_watch") == health.watch
            if is_it and labels["health_error_code"] == "DCGM_FR_OK":
                plain.track.states[here] = GONE
        track = constant(float(health.value), len(times))
        track.states[:] = np.where(here, HELD, np.where(times < health.start, MISSING, GONE))
        labels = {"health_watch": health.watch, "health_error_code": health.code}
        plains.append(Plain(HEALTH, labels, track))


def _between(times: Floats, start: float, end: float | None) -> np.ndarray:
    return (times >= start) & (times < (math.inf if end is None else end))


def lose(plains: Iterable[Plain], gaps: Sequence[Gap], times: Floats) -> None:
    """What the gaps take away or spoil, in place."""
    for gap in gaps:
        here = _between(times, gap.start, gap.end)
        if not here.any():
            continue
        for plain in plains:
            if not gap.metrics or any(fnmatchcase(plain.metric, m) for m in gap.metrics):
                _spoil(plain.track, gap.effect, here)


def _spoil(track: Track, effect: str, here: np.ndarray) -> None:
    match effect:
        case "gone":
            track.states[here] = GONE
        case "silent":
            track.states[here] = MISSING
        case "frozen":
            before = max(int(np.argmax(here)) - 1, 0)
            track.values[here] = track.values[before]
            track.states[here] = track.states[before]
        case "nan":
            track.values[here] = math.nan
        case _:
            track.values[here] = SENTINEL
