"""The policy's canary queries with their words filled in. Text in, text out."""

from __future__ import annotations

import re
from collections.abc import Iterable

from breakfix.cohorts import Cohort
from breakfix.errors import SettingsError
from breakfix.observe.promql import duration

_INCREASE = re.compile(r"\$increase\(([^()]*)\)")
_WORD = re.compile(r"\$(window|by|match|replicas)\b")
_MATCHER = re.compile(r'\s*[a-zA-Z_][a-zA-Z0-9_]*\s*(?:=~|!~|!=|=)\s*"(?:[^"\\\n]|\\.)*"\s*')

#: By how much a counter grew. `increase` alone misses the first value of a series that is born in
#: the window, and errors are often just that: so such a series counts whole, if what it comes from
#: answered its scrape when it was not there yet. A scrape that failed then says nothing: a pod's
#: whole life would be taken for the window's. Copies of a series are one: the largest.
_GREW = (
    "max without ($replicas) ("
    "(({0} unless ignoring ($replicas) ({0} offset $window))"
    " and on (instance, job) ((up offset $window) == 1))"
    " or increase({0}[$window]))"
)


def fill(
    text: str, *, by: Iterable[str], cohort: Cohort, window_s: float, replicas: Iterable[str] = ()
) -> str:
    """The words of RequestSource's docstring replaced, for one cohort."""
    words = {
        "window": duration(window_s),
        "by": ", ".join(by),
        "match": match_of(cohort),
        "replicas": ", ".join(replicas),
    }
    grown = _INCREASE.sub(lambda m: _GREW.format(m[1]), text)
    return _WORD.sub(lambda m: words[m[1]], grown)


def match_of(cohort: Cohort) -> str:
    """Matchers that narrow a query to the cohort, each with its comma; more may come back.

    Who of the nodes and pods belongs to the cohort is decided afterwards: a matcher that lists
    thousands of pods costs more than it saves.
    """
    if cohort.matchers:
        return f"{cohort.matchers},"
    namespaces = {namespace for namespace, _ in cohort.pods or ()}
    return f"namespace={quoted(namespaces.pop())}," if len(namespaces) == 1 else ""


def quoted(text: str) -> str:
    """A PromQL string, whatever is in it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def parse_matchers(text: str) -> str:
    """Label matchers as PromQL has them between braces. Raises SettingsError for anything else."""
    inner = text.strip().removeprefix("{").removesuffix("}")
    found, at = [], 0
    while match := _MATCHER.match(inner, at):
        found.append(match[0].strip())
        at = match.end()
        if at < len(inner) and inner[at] == ",":
            at += 1
        else:
            break
    if not found or inner[at:].strip():
        raise SettingsError(f'{text!r} are no label matchers; write e.g. app="chat",version=~"2.*"')
    return ",".join(found)
