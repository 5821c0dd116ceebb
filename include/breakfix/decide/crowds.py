"""Crowds: nodes of one place, kind or change that are in trouble together. Pure.

One pass over the fleet counts how large each scope is; all else is work for the nodes in trouble
only, so that a fleet of ten thousand costs hardly more than its faults.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from breakfix.decide.sentences import shown
from breakfix.model import FailureClass, Node, Observation, ScopeKind
from breakfix.policy import CommonCause

CHANGE, FACT = "change", "fact"

Scope = tuple[str, str, str]  # kind (of ScopeKind, CHANGE or FACT), name of the fact, value

_PLACES = frozenset({ScopeKind.RACK.value, ScopeKind.FABRIC.value})
_LARGE = frozenset({ScopeKind.POOL.value, ScopeKind.SKU.value, ScopeKind.FLEET.value})
_STANDS_OUT = 2.0  # nodes with a fact fail so many times as often as the others (ours)
_CHANCE = 1 / 8  # that so many faults all lie among the nodes with a fact (ours)

#: Of crowds that explain the same trouble equally well, the one that says most about its cause:
#: links share a fabric, all else power and cooling.
_TELLING = (CHANGE, FACT, "fabric", "rack", "pool", "sku", "fleet")
_TELLING_OF_PLACE = (CHANGE, FACT, "rack", "fabric", "pool", "sku", "fleet")
_LINKS = frozenset({FailureClass.NVLINK_DOWN, FailureClass.FABRIC})


@dataclass(frozen=True, slots=True)
class Trouble:
    """Which nodes are in trouble, and how."""

    by_class: Mapping[FailureClass, frozenset[str]]
    disruptive: frozenset[str]  # would be taken out now, or were within the window
    _totals: dict[tuple[frozenset[FailureClass], bool], int] = field(default_factory=dict)

    @property
    def nodes(self) -> frozenset[str]:
        return self.disruptive.union(*self.by_class.values())

    def count(self, classes: frozenset[FailureClass], *, with_disruptive: bool) -> int:
        """Nodes of the fleet in trouble of these kinds; each question is answered once."""
        key = (classes, with_disruptive)
        if key not in self._totals:
            first = self.disruptive if with_disruptive else frozenset[str]()
            self._totals[key] = len(first.union(*(self.by_class[c] for c in classes)))
        return self._totals[key]


@dataclass(frozen=True, slots=True)
class Crowd:
    """Nodes of one scope that are in trouble together."""

    scope: Scope
    nodes: frozenset[str]
    size: int  # of the scope
    classes: frozenset[FailureClass]  # shared by so many that each is a crowd; none: all unlike
    fit: float  # 0..1: how well the scope tells these nodes from all others (F1)
    is_mixed: bool = False  # unlike faults count together here

    @property
    def name(self) -> str:
        kind, fact, value = *self.scope[:2], shown(self.scope[2])
        if kind in {CHANGE, FACT}:
            return f"{fact}={value}" if value else fact
        return f"{kind}={value}" if value else kind

    @property
    def kind(self) -> str:
        return self.scope[0]

    @property
    def rank(self) -> tuple[float, int, int, bool, str]:
        """The most telling first."""
        order = _TELLING if self.classes & _LINKS else _TELLING_OF_PLACE
        telling = order.index(self.kind)
        is_vague = not self.scope[2]
        return (-round(self.fit, 9), telling, -len(self.nodes), is_vague, self.name)


def crowds(trouble: Trouble, observation: Observation, rule: CommonCause) -> list[Crowd]:
    """Every crowd that trips the rule, the most telling first. They may overlap."""
    troubled = trouble.nodes
    if len(troubled) < rule.min_nodes:
        return []
    judged = observation.judged
    hit: dict[Scope, set[str]] = defaultdict(set)
    for node in judged:
        if node.name in troubled:
            for scope in _scopes(node, observation.facts.get(node.name, {}), rule):
                hit[scope].add(node.name)
    hit = {scope: nodes for scope, nodes in hit.items() if len(nodes) >= rule.min_nodes}
    sizes = _sizes({(kind, name) for kind, name, _ in hit}, judged, observation.facts)
    found: list[Crowd] = []
    for scope, nodes in hit.items():
        found += _crowd(scope, nodes, sizes[scope], len(judged), trouble=trouble, rule=rule)
    return sorted(found, key=lambda c: c.rank)


def _sizes(
    wanted: Iterable[tuple[str, str]],
    judged: Sequence[Node],
    facts: Mapping[str, Mapping[str, str]],
) -> Mapping[Scope, int]:
    """How many nodes are in each scope of these kinds: (kind, name of the fact). A column at a
    time, as all nodes of a fleet are counted.
    """
    of_node = [facts.get(n.name, {}) for n in judged]
    sizes: dict[Scope, int] = {}
    for kind, name in wanted:
        if kind == ScopeKind.FLEET:
            sizes[kind, "", ""] = len(judged)
        elif name:
            counted = Counter(f[name] for f in of_node if f.get(name))
            sizes |= {(kind, name, value): n for value, n in counted.items()}
            sizes[kind, name, ""] = counted.total()
        else:
            counted = Counter(map(attrgetter(kind), judged))
            sizes |= {(kind, "", value): n for value, n in counted.items()}
    return sizes


def _scopes(node: Node, facts: Mapping[str, str], rule: CommonCause) -> list[Scope]:
    """The scopes of one node. Without the label a node is in no scope of that kind."""
    scopes: list[Scope] = []
    for kind in rule.scopes:
        if kind is ScopeKind.FLEET:
            scopes.append((kind.value, "", ""))
        elif value := getattr(node, kind.value):
            scopes.append((kind.value, "", value))
    scopes += [(FACT, fact, value) for fact in rule.facts if (value := facts.get(fact))]
    for change in rule.changes:
        if value := facts.get(change):
            scopes += [(CHANGE, change, value), (CHANGE, change, "")]
    return scopes


def _crowd(
    scope: Scope,
    nodes: set[str],
    size: int,
    fleet: int,
    *,
    trouble: Trouble,
    rule: CommonCause,
) -> Iterable[Crowd]:
    shared: set[FailureClass] = set()
    together: set[str] = set()
    for failure_class, everywhere in trouble.by_class.items():
        mine = nodes & everywhere
        if _is_crowd(scope, len(mine), size, rule) and (
            scope[0] not in {FACT, CHANGE}
            or _stands_out(scope, len(mine), size, len(everywhere), fleet)
        ):
            shared.add(failure_class)
            together |= mine
    out = nodes & trouble.disruptive
    is_mixed = scope[0] in _PLACES and _is_crowd(scope, len(out), size, rule)
    if is_mixed:
        together |= out
    if together:
        classes = frozenset(shared)
        fit = 2 * len(together) / (size + trouble.count(classes, with_disruptive=is_mixed))
        yield Crowd(scope, frozenset(together), size, classes, fit, is_mixed)


def _is_crowd(scope: Scope, hit: int, size: int, rule: CommonCause) -> bool:
    share = hit / size
    if hit >= rule.min_nodes and share >= _least(scope, rule):
        return True
    return scope[0] in _LARGE and hit >= rule.surge_nodes and share >= rule.surge_share


def _least(scope: Scope, rule: CommonCause) -> float:
    return min(rule.min_share, rule.min_share_changed) if scope[0] == CHANGE else rule.min_share


def _stands_out(scope: Scope, hit: int, size: int, everywhere: int, fleet: int) -> bool:
    """Do nodes with this fact fail at least twice as often as the others, and so many that chance
    would not put them all there? Where all nodes have it a version tells nothing; a change of all
    of them does.
    """
    others = fleet - size
    if others <= 0:
        return scope[0] == CHANGE
    is_often = hit / size >= _STANDS_OUT * (everywhere - hit) / others
    return is_often and (scope[0] == CHANGE or (size / fleet) ** hit <= _CHANCE)
