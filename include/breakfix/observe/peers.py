"""A value beside those of its peers: same SKU and pool, median and MAD. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from breakfix.model import Node
from breakfix.observe.threshold import is_beyond
from breakfix.policy import PeerRule, SignalRule

if TYPE_CHECKING:
    import numpy.typing as npt

Place = tuple[str, str, str]  # node, GPU, key
_MAD_TO_SIGMA = 1.4826  # of a normal distribution


def unlike_peers(
    rule: SignalRule, values: Mapping[Place, float], nodes: Mapping[str, Node]
) -> dict[Place, float]:
    """Ratio to the peers' median, for the places that are far from it; see PeerRule.

    Places with the same labels and key are peers. A crowd in which fewer than `min_nodes` nodes
    report says nothing. The median of at least half the crowd cannot be moved by one node.
    """
    if rule.peers is None:
        return {}
    crowds: dict[tuple[str, ...], list[Place]] = {}
    labels = attrgetter(*rule.peers.by, "name")  # two at least, so always a tuple
    of_node = {name: labels(node)[:-1] for name, node in nodes.items()}
    for place in values:
        crowds.setdefault((*of_node[place[0]], place[2]), []).append(place)
    import numpy as np  # here, because DAG parsing must stay light

    far: dict[Place, float] = {}
    for places in crowds.values():
        if len({node for node, _, _ in places}) >= rule.peers.min_nodes:
            far |= _far(rule, rule.peers, places, np.array([values[p] for p in places]))
    return far


def _far(
    rule: SignalRule, peers: PeerRule, places: list[Place], values: npt.NDArray[Any]
) -> dict[Place, float]:
    import numpy as np

    middle = float(np.median(values))
    if rule.op == "<" and middle <= peers.floor:
        return {}  # the crowd is idle: nobody is slow
    base = max(middle, peers.floor)
    if base <= 0:
        return {}
    spread = _MAD_TO_SIGMA * float(np.median(np.abs(values - middle)))
    is_far = np.abs(values - middle) >= peers.z * spread
    ratios = values / base
    return {
        places[i]: float(ratios[i])
        for i in np.flatnonzero(is_far)
        if is_beyond(rule, float(ratios[i]))
    }
