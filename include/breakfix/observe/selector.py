"""Equality-based label selectors, as the settings have them: `a=b,c!=d,e,!f`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from breakfix.errors import SettingsError


def matches(labels: Mapping[str, str], selector: str) -> bool:
    """Do the labels satisfy every term? An empty selector matches all. Raises SettingsError."""
    return all(_term(labels, term) for term in _terms(selector))


def check_selector(selector: str) -> None:
    """Raise SettingsError for a term that is not understood, whatever there is to select."""
    _terms(selector)


@lru_cache(maxsize=64)
def _terms(selector: str) -> tuple[str, ...]:
    terms = tuple(term.strip() for term in selector.split(",") if term.strip())
    for term in terms:
        if any(c in term for c in "() \t"):
            raise SettingsError(
                f"label selector term {term!r} is not understood; write a=b, a!=b, a or !a"
            )
    return terms


def _term(labels: Mapping[str, str], term: str) -> bool:
    if "!=" in term:
        key, _, value = term.partition("!=")
        return labels.get(key) != value
    if "=" in term:
        key, _, value = term.partition("=")
        return labels.get(key) == value.removeprefix("=")
    if term.startswith("!"):
        return term[1:] not in labels
    return term in labels
