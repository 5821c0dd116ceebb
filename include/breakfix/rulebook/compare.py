"""Two policies side by side: every value that differs, and what the change does to automation.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from breakfix.model import SignalMode
from breakfix.policy import Policy
from breakfix.rulebook.boldness import Effect, effect_of
from breakfix.rulebook.words import said

#: Maps whose entries are rules of their own: one that only one side has is told as a whole.
_RULES = ("signals", "xids", "classes", "facts", "expected_gpus")
_MISSING = object()


@dataclass(frozen=True, slots=True)
class Change:
    """One value that differs; None stands for "is not there"."""

    path: str
    before: Any
    after: Any
    effect: Effect
    text: str


def compare(before: Policy, after: Policy) -> tuple[Change, ...]:
    """All changes from one policy to the other, what makes automation bolder first."""
    order = list(Effect)
    old, new = _plain(before), _plain(after)
    changes = list(_walk("", old, new, old, new))
    return tuple(sorted(changes, key=lambda c: (order.index(c.effect), c.path)))


def _plain(policy: Policy) -> dict[str, Any]:
    """The policy as maps all through: signals by name, sets in order."""
    plain = policy.model_dump(mode="json", by_alias=True)
    plain["signals"] = {s.pop("name"): s for s in plain["signals"]}
    plain["approvals"]["ask_before"] = sorted(plain["approvals"]["ask_before"])
    plain["app_xids"] = sorted(plain["app_xids"])
    return plain


def _walk(
    path: str, old: Any, new: Any, all_old: Mapping[str, Any], all_new: Mapping[str, Any]
) -> Iterator[Change]:
    if old == new:
        return
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}, key=str):
            inner = f"{path}.{key}" if path else str(key)
            a, b = old.get(key, _MISSING), new.get(key, _MISSING)
            if a is _MISSING or b is _MISSING:
                yield _whole(inner, a, b)
            else:
                yield from _walk(inner, a, b, all_old, all_new)
        return
    yield _value(path, old, new, all_old, all_new)


def _value(
    path: str, old: Any, new: Any, all_old: Mapping[str, Any], all_new: Mapping[str, Any]
) -> Change:
    rule_before, rule_after = _rule(path, all_old), _rule(path, all_new)
    modes = {rule_before.get("mode", ""), rule_after.get("mode", "")}
    is_context = modes == {SignalMode.NEVER.value}
    effect = effect_of(
        path,
        old,
        new,
        op=rule_after.get("op", ">"),
        mode=SignalMode.NEVER if is_context else "",
    )
    return Change(path, old, new, effect, f"{path}: {said(path, old)} -> {said(path, new)}")


def _rule(path: str, policy: Mapping[str, Any]) -> Mapping[str, Any]:
    parts = path.split(".")
    if parts[0] != "signals" or len(parts) < 2:  # noqa: PLR2004 - section and name
        return {}
    found: Mapping[str, Any] = policy["signals"].get(parts[1], {})
    return found


def _whole(path: str, old: Any, new: Any) -> Change:
    """An entry that only one side has."""
    is_new = old is _MISSING
    value = new if is_new else old
    effect = _effect_of_entry(path, value, is_new=is_new)
    before, after = (None, value) if is_new else (value, None)
    what = "is new" if is_new else "is gone"
    return Change(path, before, after, effect, f"{path} {what}: {_summary(path, value)}")


def _effect_of_entry(path: str, value: Any, *, is_new: bool) -> Effect:
    section = path.partition(".")[0]
    if section == "limits":  # one more exclusion, one more limited scope
        return Effect.CAREFUL if is_new else Effect.BOLDER
    if section in {"signals", "xids"}:
        if value["mode"] == SignalMode.NEVER:
            return Effect.OTHER
        if value.get("is_required"):
            return Effect.OTHER
        return Effect.BOLDER if is_new else Effect.CAREFUL
    if section == "classes":
        acts = value["mode"] in {"approve", "auto"}
        return Effect.OTHER if not acts else Effect.BOLDER if is_new else Effect.CAREFUL
    return Effect.OTHER


def _summary(path: str, value: Any) -> str:
    if isinstance(value, Mapping) and path.partition(".")[0] in _RULES:
        keys = ("failure_class", "mode", "weight", "threshold", "ladder")
        shown = {k: value[k] for k in keys if k in value}
        return ", ".join(f"{k} {said(f'{path}.{k}', v)}" for k, v in shown.items()) or str(value)
    return said(path, value)
