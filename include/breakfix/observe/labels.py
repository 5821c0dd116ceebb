"""From the labels of a series, which come from outside, to a node and a GPU that we know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from breakfix.policy import Names

MAX_LABEL = 128  # a label value is shown to people and stored: longer ones are cut


class Missed(Enum):
    """Why no node was found."""

    UNKNOWN = auto()  # no label names a node of the cluster
    CONFLICT = auto()  # labels name different nodes


@dataclass(frozen=True, slots=True)
class NodeNames:
    """All nodes of the cluster, so that a label that names another one is noticed."""

    names: Names
    known: frozenset[str]
    #: What `node_named` has found, for loops over all series, in which a call is dear.
    found: dict[tuple[str, ...], str | Missed] = field(
        default_factory=dict, repr=False, compare=False
    )

    def node_named(self, values: tuple[str, ...]) -> str | Missed:
        """As `node_of`, by a series' values of `names.node`; found once for many series."""
        return self.found.get(values) or self._find(values)

    def claimed(self, values: tuple[str, ...]) -> frozenset[str]:
        """As `claims`, by the values."""
        return self.claims(self._labels(values))

    def _find(self, values: tuple[str, ...]) -> str | Missed:
        return self.found.setdefault(values, self.node_of(self._labels(values)))

    def _labels(self, values: tuple[str, ...]) -> Mapping[str, str]:
        return {name: value for name, value in zip(self.names.node, values, strict=True) if value}

    def node_of(self, labels: Mapping[str, str]) -> str | Missed:
        """The one node that the labels name. Two known names that disagree are worse than none."""
        found: str | Missed = Missed.UNKNOWN
        for name in self._known_values(labels):
            if found is not Missed.UNKNOWN and found != name:
                return Missed.CONFLICT
            found = name
        return found

    def claims(self, labels: Mapping[str, str]) -> frozenset[str]:
        """Every known node that some label names."""
        return frozenset(self._known_values(labels))

    def labels_naming(self, labels: Mapping[str, str], node: str) -> frozenset[str]:
        """Which labels name that node."""
        return frozenset(
            x for x in self.names.node if node in set(self._known_values({x: labels.get(x, "")}))
        )

    def _known_values(self, labels: Mapping[str, str]) -> Iterable[str]:
        for label in self.names.node:
            value = labels.get(label)
            if value is None:
                continue
            if value in self.known:
                yield value
            elif label == "instance" and (host := value.rpartition(":")[0]) in self.known:
                yield host

    def gpu_of(self, labels: Mapping[str, str]) -> str:
        """The GPU's UUID, or its index where no UUID is told; "" when the series is the node's."""
        return next((printable(labels[x]) for x in self.names.gpu if labels.get(x)), "")


def printable(value: str) -> str:
    """A label's value for people: no control characters, no endless text."""
    if value.isprintable() and len(value) <= MAX_LABEL:
        return value
    return "".join(c if c.isprintable() else "?" for c in value[:MAX_LABEL])
