"""Cases side by side in one Prometheus: each with names of its own, all looked at in one instant.

A case's nodes, pools, racks and fabrics get its prefix, in everything that names them, so that no
case has peers in another; what is printed has it taken off again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from breakfix.errors import SettingsError
from breakfix.replay.load import make_trace
from breakfix.replay.trace import Trace
from breakfix.replay.values import parse_notation
from breakfix.rulebook.cases import RuleCase, Source, parse_selector

#: The instant of the look; a fixed one, so that a case gives the same answer on any day.
INSTANT = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
_APART = timedelta(days=30)

_SCOPED = ("pool", "rack", "fabric")
_DEFAULT_POOL = "train"


@dataclass(frozen=True, slots=True)
class Placed:
    """A case as a trace with names of its own, at its instant."""

    source: Source
    trace: Trace
    prefix: str
    at: datetime

    @property
    def case(self) -> RuleCase:
        return self.source.case

    def plain(self, text: str) -> str:
        """The text with the case's own names again."""
        return text.replace(self.prefix, "")


def place(sources: Iterable[Source]) -> tuple[Placed, ...]:
    """All cases, placed. Raises SettingsError with the file and line of a case that is no trace."""
    placed, apart = [], 0
    for number, source in enumerate(sources):
        at = INSTANT
        if source.case.is_apart or source.case.telemetry.get("instance", "host") != "host":
            apart += 1
            at = INSTANT + apart * _APART
        placed.append(_placed(source, f"c{number:03d}-", at))
    return tuple(placed)


def _placed(source: Source, prefix: str, at: datetime) -> Placed:
    document = _document(source.case, prefix)
    try:
        trace = make_trace(document, f"{source.file}:{source.line}")
    except SettingsError as e:
        raise SettingsError(str(e).replace(f", trace {document['name']}", "")) from None
    return Placed(source, trace, prefix, at)


def _document(case: RuleCase, prefix: str) -> dict[str, Any]:
    """The case as a trace's plain data."""
    fleet = _fleet(case)
    names = _Names(prefix, _node_names(fleet))
    series = _series(case)
    return {
        "name": f"{prefix}case",
        "about": case.name,
        "kind": "rule",
        "every": case.every,
        "sweep": max(case.every, 60.0),
        "warmup": _warmup(case, series),
        "length": 0,
        "spread_scrapes": False,
        "fleet": [names.group(g) for g in fleet],
        "telemetry": names.of({"instance": "host", **case.telemetry}),
        "series": [names.of(s) for s in series],
        **{
            key: [names.of(x) for x in getattr(case, key)]
            for key in ("xids", "health", "restarts", "gaps", "nodes", "pods", "events")
        },
    }


def _fleet(case: RuleCase) -> list[dict[str, Any]]:
    if not isinstance(case.fleet, int):
        return [{"gpus": case.gpus, **g} for g in case.fleet]
    names = ["node"] if case.fleet == 1 else [f"node-{i + 1}" for i in range(case.fleet)]
    return [{"names": names, "gpus": case.gpus, "rack": "r1"}]


def _node_names(fleet: Sequence[Mapping[str, Any]]) -> list[str]:
    """As `breakfix.replay.trace.group_names` makes them."""
    found: list[str] = []
    for group in fleet:
        listed = group.get("names")
        count, start = int(group.get("count", 1)), str(group.get("prefix", "gpu-"))
        width = max(3, len(str(count)))
        found += listed or [f"{start}{i:0{width}d}" for i in range(1, count + 1)]
    return found


def first_node(case: RuleCase) -> str:
    """The node that `expect` speaks of where it names none."""
    return _node_names(_fleet(case))[0]


def _series(case: RuleCase) -> list[dict[str, Any]]:
    if not isinstance(case.series, Mapping):
        return [dict(s) for s in case.series]
    return [_short(selector, values, case) for selector, values in case.series.items()]


def _short(selector: str, values: str, case: RuleCase) -> dict[str, Any]:
    """`METRIC{gpu="0", node="node-2"}: 0x40 79x5`, which ends with the look."""
    metric, labels = parse_selector(selector)
    made: dict[str, Any] = {"metric": metric, "values": values, "labels": labels}
    if "gpu" in labels and metric.startswith("DCGM_"):
        made["gpus"] = [int(labels.pop("gpu"))]
    if "node" in labels:
        made["nodes"] = [labels.pop("node")]
    made["start"] = -(_length(values) - 1) * case.every
    return made


def _length(values: str) -> int:
    return len(parse_notation(values).values)


def _warmup(case: RuleCase, series: Iterable[Mapping[str, Any]]) -> float:
    """Long enough for every series, and a whole number of samples before the look."""
    longest = max((-float(s["start"]) for s in series if _is_number(s.get("start"))), default=0.0)
    wanted = max(case.history, longest)
    return case.every * -(-wanted // case.every)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


class _Names:
    """Puts the prefix before every name of the case in plain data."""

    def __init__(self, prefix: str, nodes: Iterable[str]) -> None:
        self._prefix = prefix
        self._nodes = frozenset(nodes)

    def group(self, group: Mapping[str, Any]) -> dict[str, Any]:
        """A group of nodes in scopes of its own."""
        made = {"pool": _DEFAULT_POOL, **group}
        names = made.get("names") or ()
        if names:
            made["names"] = [self._prefix + n for n in names]
        else:
            made["prefix"] = self._prefix + str(made.get("prefix", "gpu-"))
        for scope in _SCOPED:
            if made.get(scope):
                made[scope] = self._prefix + str(made[scope])
        return made

    def of(self, value: Any, key: str = "") -> Any:
        """The value with its names replaced, all the way down."""
        if isinstance(value, Mapping):
            return {k: self.of(v, str(k)) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self.of(v, key) for v in value]
        return self._word(value, key) if isinstance(value, str) else value

    def _word(self, text: str, key: str) -> str:
        if text in self._nodes and key not in {"exporters", "per", "target_label"}:
            return self._prefix + text
        if key in {"nodes", "only"}:
            scope, is_scope, value = text.partition("=")
            if not is_scope:
                return self._prefix + text
            if scope in _SCOPED:
                return f"{scope}={self._prefix}{value}"
        return text
