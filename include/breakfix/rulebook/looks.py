"""Looks at all cases of one instant, under many policies: what did not change is not looked at
again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from breakfix.model import Observation, digest
from breakfix.observe import observe
from breakfix.policy import Policy
from breakfix.ports import Cluster, Metrics

GPU_NODES = "nvidia.com/gpu.present=true"

#: What of a signal decide reads: a change of it needs no new look.
_DECIDED = frozenset(
    {
        "weight",
        "mode",
        "group",
        "kind",
        "failure_class",
        "text",
        "source",
        "start_at",
        "is_required",
        "absence_weight",
        "input",
    }
)
_FEW = 3  # signals that are looked at by themselves; more are looked at with all others


@dataclass(frozen=True, slots=True)
class Sight:
    """What of a policy a look depends on: `rest`, and each signal by its name."""

    rest: str
    signals: Mapping[str, str]

    @property
    def key(self) -> str:
        return digest([self.rest, sorted(self.signals.items())])


def sight_of(policy: Policy) -> Sight:
    """Policies of one sight see the same."""
    plain: Mapping[str, Any] = policy.model_dump(mode="json", by_alias=True)
    others = [plain["names"], plain["facts"], plain["expected_gpus"]]
    others += [plain["timing"]["stale_sample"], plain["timing"]["boot_grace"]]
    signals = {
        s["name"]: digest({k: v for k, v in s.items() if k not in _DECIDED})
        for s in plain["signals"]
    }
    return Sight(digest(others), signals)


class Looks:
    """One cluster at one instant."""

    def __init__(
        self, metrics: Metrics, cluster: Cluster, at: datetime, floors: Mapping[str, datetime]
    ) -> None:
        self._metrics, self._cluster, self._at, self._floors = metrics, cluster, at, floors
        self._first: tuple[Sight, Observation] | None = None

    def look(self, policy: Policy, sight: Sight) -> Observation:
        """What the real observe sees under this policy. Raises ClusterError."""
        if self._first is None:
            self._first = (sight, self._observe(policy))
        known, seen = self._first
        if known.key == sight.key:
            return seen
        changed = [
            s.name for s in policy.signals if known.signals.get(s.name) != sight.signals[s.name]
        ]
        if known.rest != sight.rest or len(changed) > _FEW:
            return self._observe(policy)
        return self._with_changed(policy, seen, changed)

    def _with_changed(
        self, policy: Policy, seen: Observation, changed: Sequence[str]
    ) -> Observation:
        """The first look with a few signals looked at anew: no signal's answer depends on
        another's.
        """
        few = tuple(s for s in policy.signals if s.name in changed)
        anew = self._observe(policy.model_copy(update={"signals": few})) if few else None
        kept = {s.name for s in policy.signals} - set(changed)
        readings = [r for r in seen.readings if r.signal in kept]
        coverage = {name: c for name, c in seen.coverage.items() if name in kept}
        if anew is not None:
            readings += anew.readings
            coverage |= anew.coverage
        ordered = sorted(readings, key=lambda r: (r.node, r.signal, r.gpu, r.key))
        return replace(seen, readings=tuple(ordered), coverage=coverage)

    def _observe(self, policy: Policy) -> Observation:
        return observe(
            self._metrics,
            self._cluster,
            policy,
            at=self._at,
            gpu_node_selector=GPU_NODES,
            floors=self._floors,
        )
