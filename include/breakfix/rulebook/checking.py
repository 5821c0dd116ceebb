"""What is wrong with a policy file, value by value, each with its file, line and column. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from breakfix.errors import SettingsError
from breakfix.model import REPAIRS, Action
from breakfix.policy import Policy
from breakfix.policy_text import TextFault, WrongText, load_yaml, merge_overlay, signal_faults
from breakfix.rulebook.names import nearest
from breakfix.rulebook.places import Document, PathPart, Place
from breakfix.rulebook.schema import keys_at


@dataclass(frozen=True, slots=True)
class Fault:
    """One wrong value: where it stands, what its path is, and what is wanted."""

    place: Place | None
    path: str
    text: str

    def __str__(self) -> str:
        where = f"{self.place}: " if self.place else ""
        return f"{where}{self.path}: {self.text}"


class WrongPolicy(SettingsError):
    """A policy that is not well formed; `faults` has each wrong value."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("policy: " + "; ".join(map(str, faults)))
        self.faults = tuple(faults)


def read_policy(
    default: Document,
    overlay: Document | None = None,
    *,
    available: frozenset[Action] = REPAIRS,
) -> Policy:
    """The policy of a default and an overlay. Raises WrongPolicy.

    `available`: the repairs that somebody is there to do; a ladder may name no other.
    """
    documents = [default, *([overlay] if overlay is not None else [])]
    data: dict[str, Any] = {}
    for document in documents:
        data = merge_overlay(data, _load(document))
    try:
        policy = Policy.model_validate(data)
    except ValidationError as e:
        faults = [
            _fault(err["type"], err["loc"], err["msg"], data, documents)
            for err in e.errors(include_url=False)
        ]
        raise WrongPolicy(_once(faults)) from None
    undone = list(_undone(policy, available, documents))
    if undone:
        raise WrongPolicy(undone)
    return policy


def _undone(
    policy: Policy, available: frozenset[Action], documents: Sequence[Document]
) -> Iterator[Fault]:
    """Rungs that nobody is configured to do."""
    for name, rule in policy.classes.items():
        path = ["classes", name.value, "ladder"]
        holder = next((d for d in reversed(documents) if d.has(path)), documents[-1])
        for action in sorted((REPAIRS & set(rule.ladder)) - available):
            text = f"nobody is configured to do {action}: see BREAKFIX_REPAIR_PROVIDERS"
            yield Fault(holder.place(path), ".".join(path), text)


def _once(faults: Sequence[Fault]) -> list[Fault]:
    """Several forms of one value complain each: the first word on it is enough."""
    by_path = {f.path: f for f in reversed(faults)}
    return [f for f in faults if by_path[f.path] is f]


def _load(document: Document) -> dict[str, Any]:
    try:
        data = load_yaml(document.text)
    except WrongText as e:
        raise WrongPolicy([_of_text(document, f) for f in e.faults]) from None
    if data is None:  # nothing but comments
        return {}
    if not isinstance(data, dict):
        place = Place(document.name, 1, 1)
        raise WrongPolicy([Fault(place, "policy", "must be a map at its top level")])
    if faults := [
        Fault(document.place(path), ".".join(map(str, path)), text)
        for path, text in signal_faults(data)
    ]:
        raise WrongPolicy(faults)
    return data


def _of_text(document: Document, fault: TextFault) -> Fault:
    place = Place(document.name, fault.line, fault.column) if fault.line else None
    return Fault(place, fault.path, fault.text)


def _fault(
    kind: str,
    loc: Sequence[PathPart],
    message: str,
    data: dict[str, Any],
    documents: Sequence[Document],
) -> Fault:
    path = _named(loc, data)
    # The overlay's word is the one that counts, where it has one.
    holder = next((d for d in reversed(documents) if d.has(path)), documents[-1])
    text = message.removeprefix("Value error, ")
    if kind == "extra_forbidden":
        near = nearest(str(path[-1]), keys_at(path[:-1]), most=1)
        text = "no such key" + (f"; did you mean {near[0]}?" if near else "")
    elif path and str(path[-1]) == "[key]":
        path = path[:-1]
        near = nearest(str(path[-1]), keys_at(path[:-1]), most=1)
        text = f"no such name; did you mean {near[0]}?" if near else text
    return Fault(holder.place(path), ".".join(map(str, path)) or "policy", text)


def _named(loc: Sequence[PathPart], data: dict[str, Any]) -> list[PathPart]:
    """The error's path with a signal's name in place of its number in the merged list."""
    path = list(loc)
    if len(path) > 1 and path[0] == "signals" and isinstance(path[1], int):
        path[1] = data["signals"][path[1]]["name"]
    return path
