"""What could not be judged, node by node: unknown is neither healthy nor broken. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from breakfix.model import (
    Action,
    Coverage,
    FailureClass,
    Finding,
    Observation,
    OpenFinding,
    SignalKind,
    SignalMode,
)
from breakfix.policy import Policy, SignalRule

_MOSTLY_SEEN = 0.5  # below it the silence is the monitoring's trouble, not this node's (ours)
_ALIKE_SEEN = 0.9  # so many of its like report a field: a node without it has lost it (ours)
_MIN_ALIKE = 2  # fewer nodes are no example (ours)


@dataclass(frozen=True, slots=True)
class Blindness:
    """What one node does not tell."""

    unknown: tuple[str, ...]  # every signal that could not be judged
    lost: tuple[str, ...]  # required ones among them, which this node should report
    partly: tuple[str, ...] = ()  # others, which nodes like it report, or nobody could be asked for
    unreported: tuple[OpenFinding, ...] = ()  # what spoke before and is not reported now

    @property
    def is_whole(self) -> bool:
        """Whether nothing of it keeps anybody from clearing the node."""
        return not (self.lost or self.partly or self.unreported)


def blindness_by_node(observation: Observation, policy: Policy) -> Mapping[str, Blindness]:
    """For each node the signals it does not report. A signal that no node reports is not collected:
    unknown everywhere, lost only when it is required and nothing else required is seen either. One
    whose query failed may have been speaking: nobody is cleared by that.
    """
    everywhere: list[str] = []
    unread = sorted(r.name for r in policy.signals if _is_unread(r, observation))
    missing: dict[str, list[str]] = defaultdict(list)
    partly: dict[str, list[str]] = defaultdict(list)
    likes = {n.name: (n.sku, n.pool) for n in observation.judged}
    sizes = Counter(likes.values())
    for rule in policy.signals:
        cover = observation.coverage.get(rule.name)
        if cover is None or not cover.nodes_seen:
            if not rule.is_kubernetes:  # a condition that no node has: that agent is not installed
                everywhere.append(rule.name)
            continue
        unseen = likes.keys() - cover.nodes_seen
        for node in unseen:
            missing[node].append(rule.name)
        if unseen and rule.is_of_node:
            for node in _unlike(unseen, likes, sizes):
                partly[node].append(rule.name)
    required = policy.required_signals
    broken = {n for n in required if _is_broken(observation.coverage.get(n))}
    usual = replace(_blindness(everywhere, [], required, broken), partly=tuple(unread))
    usually = {
        n: replace(
            _blindness(everywhere, missing[n], required, broken),
            partly=tuple(sorted([*partly[n], *unread])),
        )
        if n in missing
        else usual
        for n in likes
    }
    return usually | {
        n: replace(
            usually[n],
            unknown=tuple(sorted({*usually[n].unknown, *(f.signal for f in found)})),
            unreported=found,
        )
        for n, found in observation.unreported.items()
        if n in usually
    }


def _is_unread(rule: SignalRule, observation: Observation) -> bool:
    """Whether it would say something of a node, and Prometheus did not answer, or not wholly."""
    cover = observation.coverage.get(rule.name)
    speaks = rule.is_of_node and rule.mode is not SignalMode.NEVER
    return speaks and not rule.is_required and cover is not None and bool(cover.error)


def _unlike(
    unseen: AbstractSet[str],
    likes: Mapping[str, tuple[str, str]],
    sizes: Mapping[tuple[str, str], int],
) -> list[str]:
    """Those of the nodes without a field whose like (same SKU and pool) nearly all have it."""
    without = Counter(likes[n] for n in unseen)
    return [n for n in unseen if _is_usual(sizes[likes[n]], without[likes[n]])]


def _is_usual(size: int, without: int) -> bool:
    seen = size - without
    return seen >= _MIN_ALIKE and seen >= _ALIKE_SEEN * (size - 1)


def _blindness(
    everywhere: list[str], own: list[str], required: frozenset[str], broken: set[str]
) -> Blindness:
    unknown = {*everywhere, *own}
    lost = (required & set(own)) | broken
    if required and required <= unknown:
        lost = required
    return Blindness(tuple(sorted(unknown)), tuple(sorted(lost)))


def _is_broken(cover: Coverage | None) -> bool:
    return cover is None or bool(cover.error)


def absences(node: str, observation: Observation, policy: Policy) -> tuple[Finding, ...]:
    """What the silence of a NotReady node's exporters adds: it is gone for several sources, not
    for one.
    """
    return tuple(
        _absence(node, rule)
        for rule in policy.signals
        if rule.absence_weight > 0 and _is_alone_silent(node, observation.coverage.get(rule.name))
    )


def _is_alone_silent(node: str, cover: Coverage | None) -> bool:
    return (
        cover is not None
        and not cover.error
        and node not in cover.nodes_seen
        and cover.share >= _MOSTLY_SEEN
    )


def _absence(node: str, rule: SignalRule) -> Finding:
    return Finding(
        signal=rule.name,
        node=node,
        gpu="",
        value=0.0,
        threshold=0.0,
        window_s=rule.window_s,
        age_s=0.0,
        weight=rule.absence_weight,
        group=f"absence_of_{rule.group}",
        mode=SignalMode.CORROBORATE,
        kind=SignalKind.STATE,
        failure_class=FailureClass.NODE_NOT_READY,
        action=Action.NONE,
        source=rule.source,
        text=f"{rule.name} is no longer reported, while most nodes report it",
        key="absent",
    )
