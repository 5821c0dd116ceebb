"""The default policy with one number doubled or halved, and what would tell the two apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from breakfix.policy import KUBERNETES, Policy
from breakfix.rulebook.partners import voices

FACTORS = (2.0, 0.5)
OF_SIGNALS = (
    "threshold",
    "window",
    "weight",
    "hold",
    "also_window",
    "clear_threshold",
    "clear_window",
    "absence_weight",
)
OF_PEERS = ("z", "min_nodes", "floor")
OF_COMMON_CAUSE = (
    "min_nodes",
    "min_share",
    "min_share_changed",
    "surge_nodes",
    "surge_share",
    "window",
)
OF_LIMITS = ("maintenance_before", "maintenance_after")
OF_TIMING = ("boot_grace", "stale_sample")
_SHARES = (  # 1.0 is the most of these
    "weight",
    "absence_weight",
    "min_confidence",
    "min_share",
    "min_share_changed",
    "surge_share",
)
_WHOLE = ("min_nodes", "surge_nodes")
#: Questions to Kubernetes' objects that look back over a window.
_LOOKING_BACK = ("event:", "pods_evicted", "daemon_pods_down:")


@dataclass(frozen=True, slots=True)
class Mutant:
    """One number of the policy, changed. `signal`: of which signal, "" for none."""

    path: str  # signals.ecc_dbe.weight
    before: float
    after: float
    place: tuple[Any, ...]
    signal: str = ""

    @property
    def name(self) -> str:
        return f"{self.path} {self.before:g} -> {self.after:g}"

    def policy(self, plain: Mapping[str, Any]) -> Policy | None:
        """The mutant of a dumped policy; None when the policy itself refuses it."""
        after = int(self.after) if self.place[-1] in _WHOLE else self.after
        try:
            return Policy.model_validate(_with(plain, self.place, after))
        except ValidationError:
            return None

    def wanted(self) -> str:
        """What a case would need that tells this mutant from the policy."""
        low, high = sorted((self.before, self.after))
        field = self.path.rpartition(".")[2]
        text = _WANTED.get(field, "a value that lies between {low:g} and {high:g}")
        return text.format(low=low, high=high, before=self.before)


_AGO = "something that is so only {low:g} to {high:g} s before the look"
_SURE = "`confidence` exactly as weight {before:g} makes it"
_MANY = "nodes in trouble between {low:g} and {high:g} of their scope or crowd"
_MAINTENANCE = "maintenance that begins or began {low:g} to {high:g} s from the look"
_WANTED = {
    "threshold": "a value between {low:g} and {high:g}, and `findings`",
    "clear_threshold": "a value between {low:g} and {high:g}, and `findings`",
    "window": _AGO,
    "also_window": _AGO,
    "clear_window": _AGO,
    "hold": _AGO,
    "weight": _SURE,
    "absence_weight": _SURE,
    "min_confidence": "a confidence between {low:g} and {high:g}, and `proven`",
    "min_nodes": _MANY,
    "min_share": _MANY,
    "min_share_changed": _MANY,
    "surge_nodes": _MANY,
    "surge_share": _MANY,
    "maintenance_before": _MAINTENANCE,
    "maintenance_after": _MAINTENANCE,
    "boot_grace": "a node that booted {low:g} to {high:g} s ago, and a state of it",
    "stale_sample": "samples that end {low:g} to {high:g} s before the look",
}


def dumped(policy: Policy) -> Mapping[str, Any]:
    """The policy as plain data, which mutants are made of."""
    return policy.model_dump(mode="json", by_alias=True)


def mutants(policy: Policy) -> Iterator[Mutant]:
    """Every mutant of a number that can matter."""
    plain = dumped(policy)
    for place in paths(policy, plain):
        before = float(_at(plain, place))
        words = [str(p) for p in place]
        signal = ""
        if place[0] == "signals":
            signal = words[1] = plain["signals"][place[1]]["name"]
        for factor in FACTORS:
            after = _scaled(place[-1], before, factor)
            if after != before:
                yield Mutant(".".join(words), before, after, place, signal)


def _with(plain: Any, place: tuple[Any, ...], value: object) -> Any:
    """A copy along the way to one value; all else is shared."""
    if not place:
        return value
    copied = list(plain) if isinstance(plain, list) else dict(plain)
    copied[place[0]] = _with(plain[place[0]], place[1:], value)
    return copied


def paths(policy: Policy, plain: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Where the numbers are that a verdict depends on; nothing that is 0 or unused."""
    for i, rule in enumerate(policy.signals):
        for field in OF_SIGNALS:
            if plain["signals"][i][field] and not _is_idle(plain["signals"][i], field):
                yield "signals", i, field
        if rule.peers is not None:
            yield from (("signals", i, "peers", f) for f in OF_PEERS if _peers(plain, i)[f])
    yield from (("xids", x, "weight") for x, rule in plain["xids"].items() if _counts(rule))
    told = {v.failure_class for v in voices(policy)}
    yield from (
        ("classes", name, "min_confidence")
        for name, rule in plain["classes"].items()
        if rule["mode"] != "off" and name in told
    )
    yield from (("common_cause", field) for field in OF_COMMON_CAUSE)
    yield from (("limits", field) for field in OF_LIMITS)
    yield from (("timing", field) for field in OF_TIMING)


def _counts(rule: Mapping[str, Any]) -> bool:
    return bool(rule["mode"] != "never")


def _peers(plain: Mapping[str, Any], signal: int) -> Mapping[str, Any]:
    found: Mapping[str, Any] = plain["signals"][signal]["peers"]
    return found


def _is_idle(rule: Mapping[str, Any], field: str) -> bool:
    """Whether the number is in no query and no sum: then there is nothing that could change."""
    if field == "window":
        query = rule["query"]
        if query.startswith(KUBERNETES):
            return not query.removeprefix(KUBERNETES).startswith(_LOOKING_BACK)
        return not any(word in query + rule["coverage"] for word in ("$window", "$step"))
    if field == "weight":
        return not _counts(rule)
    return field == "clear_window" and rule["clear_threshold"] is None


def _scaled(field: str, before: float, factor: float) -> float:
    after = before * factor
    if field in _WHOLE:
        after = float(round(after))
    return min(1.0, after) if field in _SHARES else after


def _at(plain: Any, path: tuple[Any, ...]) -> Any:
    for part in path:
        plain = plain[part]
    return plain
