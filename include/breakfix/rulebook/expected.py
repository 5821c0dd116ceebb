"""Signals that cases expect something of, and that are none: such a case proves nothing. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from breakfix.errors import SettingsError
from breakfix.policy import Policy
from breakfix.rulebook.cases import Expected, Source
from breakfix.rulebook.names import nearest


def check_signals(sources: Iterable[Source], policy: Policy) -> None:
    """Raise SettingsError, a line per case and name, for each signal that the policy does not have,
    and for each key of one that has none.
    """
    keyed = {s.name: s.is_kubernetes or bool(s.key_label) for s in policy.signals}
    if wrong := [f"{s.file}:{s.line}: {w}" for s in sources for w in _wrong(s, keyed)]:
        raise SettingsError("; ".join(wrong))


def _wrong(source: Source, keyed: Mapping[str, bool]) -> Iterator[str]:
    expect = source.case.expect
    known = {**keyed, **_own(source)}
    yield from _of_node(expect, "expect", known)
    for node, expected in expect.nodes.items():
        yield from _of_node(expected, f"expect.nodes.{node}", known)


def _own(source: Source) -> Mapping[str, bool]:
    """Signals of the case's own overlay; whether they have keys is not looked at."""
    return {signal["name"]: True for signal in source.case.policy.get("signals", [])}


def _of_node(expected: Expected, path: str, known: Mapping[str, bool]) -> Iterator[str]:
    for what, names, may_have_key in (
        ("findings", expected.findings or (), True),
        ("speak", expected.speak, True),
        ("silent", expected.silent, True),
        ("unknown", expected.unknown, False),
        ("known", expected.known, False),
    ):
        for name in names:
            signal, colon, _ = name.partition(":")
            if signal not in known:
                near = nearest(signal, known)
                hint = f"; did you mean {', '.join(near)}?" if near else ""
                yield f"{path}.{what}: no signal {signal!r}{hint}"
            elif colon and not may_have_key:
                yield f"{path}.{what}: {name!r}: write {signal}, for it is of all of its keys"
            elif colon and not known[signal]:
                yield f"{path}.{what}: {name!r}: write {signal}, which has no keys"
