"""What a person types for a rule, and which rule that is. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from breakfix.errors import SettingsError
from breakfix.policy import Policy

#: Sections whose keys are single numbers or lists, explained one by one.
SECTIONS = ("limits", "common_cause", "drain", "timing", "approvals")

_XID = re.compile(r"(?:xid[:= ]?)?(\d{1,4})", re.IGNORECASE | re.ASCII)


class Kind(StrEnum):
    """What kind of rule a name is of."""

    SIGNAL = "signal"
    XID = "xid"
    CLASS = "class"
    FACT = "fact"
    NUMBER = "number"


@dataclass(frozen=True, slots=True)
class Named:
    """One rule of the policy: its kind and its name there (`limits.max_attempts` for a number)."""

    kind: Kind
    name: str


def find_rule(text: str, policy: Policy) -> Named:
    """The rule that is meant. Raises SettingsError with the nearest names."""
    if match := _XID.fullmatch(text.strip()):
        return Named(Kind.XID, match[1])
    known = dict(_known(policy))
    if text in known:
        return known[text]
    ends = sorted({n.name for n in known.values() if n.name.endswith(f".{text}")})
    if len(ends) == 1:
        return known[ends[0]]
    near = ends or nearest(text, [n for n in known if ":" not in n])
    near = list(dict.fromkeys(n.removeprefix("signals.").removeprefix("classes.") for n in near))
    hint = f"; did you mean {', '.join(near)}?" if near else "."
    raise SettingsError(
        f"no rule named {text!r}{hint} Name a signal, an XID (79), a failure class, or a number"
        " such as limits.max_attempts: `breakfix policy show` lists them"
    )


def nearest(text: str, names: Iterable[str], *, most: int = 3) -> list[str]:
    """The names that look most like it, the likeliest first."""
    return difflib.get_close_matches(text, list(names), n=most, cutoff=0.55)


def _known(policy: Policy) -> Iterator[tuple[str, Named]]:
    for name in numbers(policy):
        yield name, Named(Kind.NUMBER, name)
    for fact in policy.facts:
        yield f"facts.{fact}", Named(Kind.FACT, fact)
    for failure_class in policy.classes:
        for text in (f"classes.{failure_class}", f"class:{failure_class}", str(failure_class)):
            yield text, Named(Kind.CLASS, str(failure_class))
    for signal in policy.signals:  # last: a signal named like a class is the signal
        for text in (f"signals.{signal.name}", f"signal:{signal.name}", signal.name):
            yield text, Named(Kind.SIGNAL, signal.name)


def numbers(policy: Policy) -> dict[str, Any]:
    """`limits.max_attempts` -> 2: every single value of the sections, by its dotted name."""
    dumped = policy.model_dump(mode="json", by_alias=True)
    return {name: value for section in SECTIONS for name, value in _flat(section, dumped[section])}


def _flat(prefix: str, value: object) -> Iterator[tuple[str, Any]]:
    if prefix == "limits.out" and isinstance(value, Mapping):
        for scope, share in value.items():
            yield f"{prefix}.{scope}", share
    elif isinstance(value, Mapping) and prefix in SECTIONS:
        for key, inner in value.items():
            yield from _flat(f"{prefix}.{key}", inner)
    else:
        yield prefix, value
