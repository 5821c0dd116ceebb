"""Cohorts by what a person writes: node labels, pods of a namespace, or PromQL label matchers."""

from __future__ import annotations

from collections.abc import Iterable

from breakfix.cohorts import Cohort
from breakfix.errors import SettingsError
from breakfix.model import Node, Pod
from breakfix.observe.canary.queries import parse_matchers
from breakfix.observe.selector import check_selector, matches

PODS = "pods:"
NODES = "nodes:"


def find_cohort(text: str, nodes: Iterable[Node], pods: Iterable[Pod]) -> Cohort:
    """The cohort that a selector names. Raises SettingsError for one that is not understood, of
    no nodes and pods, too.

    - `a=b,c!=d` or `nodes:a=b`: nodes by their labels;
    - `pods:NAMESPACE/a=b`: unfinished pods of a namespace by their labels, all without any;
    - `a="b",c=~"d.*"`: whatever series have these labels.
    """
    wanted = text.strip()
    if wanted.startswith(PODS):
        return _pods(wanted, pods)
    if '"' in wanted:
        return Cohort(wanted, matchers=parse_matchers(wanted))
    terms = wanted.removeprefix(NODES)
    if not terms.strip(", "):
        raise SettingsError(f"selector {text!r} is empty; it would select everything")
    check_selector(terms)
    return Cohort(wanted, nodes=frozenset(n.name for n in nodes if matches(n.labels, terms)))


def _pods(wanted: str, pods: Iterable[Pod]) -> Cohort:
    namespace, _, terms = wanted.removeprefix(PODS).partition("/")
    if not namespace:
        raise SettingsError(f"selector {wanted!r}: write pods:NAMESPACE/label=value")
    check_selector(terms)
    found = (
        (p.namespace, p.name)
        for p in pods
        if p.namespace == namespace and not p.is_finished and matches(p.labels, terms)
    )
    return Cohort(wanted, pods=frozenset(found))
