"""Which changes are under way: values that spread over a part of the fleet, and deploys. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta

from breakfix.cohorts import Change, Cohort
from breakfix.model import Node, Observation, Pod

Facts = Mapping[str, Mapping[str, str]]  # node -> fact -> value
DEPLOY = "deploy"
_LONGEST_NUMBER = 18  # digits; longer ones are names, and int() would refuse very long ones
#: Which of the fleet's pods are of one revision of their owner, the first that is there.
REVISIONS = ("rollouts-pod-template-hash", "pod-template-hash", "controller-revision-hash")


def find_fact_changes(
    nodes: Iterable[Node], fact: str, *, now: Facts, settled: Facts, before: Facts
) -> Iterator[Change]:
    """Values of one fact that are new among the nodes of one SKU and pool.

    `now`, `settled` and `before` are the facts at the instant, a window earlier and a look-back
    earlier. New is a value that most nodes did not have before and one of them has gained; where
    nothing is known of before, the rarer value. A node that changed within the window, or has
    several values at once, is in neither cohort: what it served was served by both.
    """
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for node in nodes:
        groups[node.sku, node.pool].append(node.name)
    for (sku, pool), names in sorted(groups.items()):
        values = {n: v for n in sorted(names) if (v := now.get(n, {}).get(fact, ""))}
        place = f"sku={sku} pool={pool}"
        settling = frozenset(n for n, v in values.items() if _differs(n, v, fact, settled))
        for value in _new_values(values, fact, before):
            has = frozenset(n for n, v in values.items() if v == value)
            rest = frozenset(values) - has
            yield Change(
                scope=f"{fact}={value} {place}",
                what=fact,
                value=value,
                canary=Cohort(f"{place} with {fact} {value}", nodes=has - settling),
                stable=Cohort(f"{place} without {fact} {value}", nodes=rest - settling),
                nodes=has,
                sku=sku,
                pool=pool,
                settling=settling,
            )


def last_known(
    nodes: Iterable[Node], fact: str, *, now: Facts, settled: Facts, remembered: Mapping[str, str]
) -> Facts:
    """The fact of each node now; of one that is silent, what it told a window ago or ever.

    A change that silences the nodes it breaks would otherwise be judged by the survivors, and be
    gone with the last of them.
    """
    told: dict[str, dict[str, str]] = {}
    for node in nodes:
        known = now.get(node.name, {}).get(fact, "") or settled.get(node.name, {}).get(fact, "")
        if value := known or remembered.get(node.name, ""):
            told[node.name] = {fact: value}
    return told


def mixture(observation: Observation, facts: Iterable[str]) -> tuple[str, ...]:
    """Values that only part of a SKU and pool have: another mixture means that something changes.

    Counts are left out, so that a rollout that goes on is the same mixture until a value comes or
    goes.
    """
    groups: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for node in observation.judged:
        known = observation.facts.get(node.name, {})
        for fact in facts:
            if value := known.get(fact, ""):
                groups[fact, node.sku, node.pool] |= set(value.split(","))
    return tuple(
        f"{fact}={value} sku={sku} pool={pool}"
        for (fact, sku, pool), values in sorted(groups.items())
        if len(values) > 1
        for value in sorted(values)
    )


def _differs(node: str, value: str, fact: str, then: Facts) -> bool:
    was = then.get(node, {}).get(fact, "")
    return "," in value or (was not in {"", value})


def _new_values(values: Mapping[str, str], fact: str, before: Facts) -> list[str]:
    had = {n: v for n in values if (v := before.get(n, {}).get(fact, ""))}
    present = Counter(v for v in values.values() if "," not in v)
    if not had:
        most = max(present.values(), default=0)
        rare = {v for v, n in present.items() if n < most}
        if len(present) > 1 and not rare:  # as many of each: the newer, by its name
            rare = {max(present, key=version_key)}
        return sorted(rare, key=version_key)
    share = Counter(had.values())
    gained = {v for n, v in values.items() if v in present and had.get(n) != v}
    return sorted((v for v in gained if share[v] * 2 < len(had)), key=version_key)


def version_key(text: str) -> tuple[tuple[int, int | str], ...]:
    """Numbers compare as numbers: 580.9 is before 580.95."""
    parts: list[tuple[int, int | str]] = []
    for word in text.replace("-", ".").split("."):
        is_number = word.isascii() and word.isdigit() and len(word) <= _LONGEST_NUMBER
        parts.append((1, int(word)) if is_number else (0, word))
    return tuple(parts)


def find_deploys(observation: Observation, *, lookback_s: float) -> Iterator[Change]:
    """Rollouts on GPU nodes of which two revisions run now; the newest is the canary.

    Of a DaemonSet the nodes are compared, of anything else the pods.
    """
    gpu_nodes = {n.name for n in observation.judged}
    since = observation.at - timedelta(seconds=lookback_s)
    owners: dict[tuple[str, str, str], dict[str, list[Pod]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for pod in observation.pods:
        owner, revision = _owner(pod)
        if revision and pod.node in gpu_nodes and not pod.is_finished:
            owners[pod.namespace, *owner][revision].append(pod)
    for (namespace, kind, name), revisions in sorted(owners.items()):
        if len(revisions) == 1:
            continue
        newest = max(sorted(revisions), key=lambda r: _first(revisions[r]) or since)
        born = _first(revisions[newest])
        if born is not None and born > since:
            yield _deploy(f"{kind}/{namespace}/{name}", kind, newest, revisions)


def _owner(pod: Pod) -> tuple[tuple[str, str], str]:
    """((kind, name), revision); a ReplicaSet's own owner is known by its name without the hash."""
    revision = next((pod.labels[x] for x in REVISIONS if pod.labels.get(x)), "")
    controller = pod.controller
    if controller is None or not revision:
        return ("", ""), ""
    return (controller.kind, controller.name.removesuffix(f"-{revision}")), revision


def _first(pods: Iterable[Pod]) -> datetime | None:
    return min((p.created_at for p in pods if p.created_at is not None), default=None)


def _deploy(owner: str, kind: str, newest: str, revisions: Mapping[str, Iterable[Pod]]) -> Change:
    new = list(revisions[newest])
    old = [p for revision, pods in revisions.items() if revision != newest for p in pods]
    nodes = frozenset(p.node for p in new)
    names = (f"{owner} at {newest}", f"{owner} before {newest}")
    if kind == "DaemonSet":
        rest = frozenset(p.node for p in old) - nodes
        cohorts = (Cohort(names[0], nodes=nodes), Cohort(names[1], nodes=rest))
    else:
        cohorts = (
            Cohort(names[0], pods=frozenset((p.namespace, p.name) for p in new)),
            Cohort(names[1], pods=frozenset((p.namespace, p.name) for p in old)),
        )
    return Change(f"{DEPLOY}={owner}@{newest}", DEPLOY, newest, *cohorts, nodes)
