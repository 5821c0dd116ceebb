"""Which change is under way, and who is its cohort."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from breakfix.cohorts import Advice, ChangeAdvice
from breakfix.decide.canary import find_deploys, find_fact_changes, hold_changes, mixture
from breakfix.decide.canary.changes import version_key
from breakfix.model import DISRUPTIVE, Action, FailureClass, Owner, Pod, RefusalReason
from tests.observations import NOW, POLICY, judged, observation, ready_node, xid

NAMES = tuple(f"n{i}" for i in range(6))
NODES = [ready_node(n, sku="h100", pool="train") for n in NAMES]


def drivers(text):
    """`AABB..`: a driver for each node, none for a dot."""
    return {n: {"driver_version": v} for n, v in zip(NAMES, text, strict=True) if v != "."}


def cohorts(now, before, settled=None):
    found = find_fact_changes(
        NODES,
        "driver_version",
        now=drivers(now),
        settled=drivers(settled or now),
        before=drivers(before),
    )
    return {
        c.value: ("".join(sorted(c.canary.nodes)), "".join(sorted(c.stable.nodes))) for c in found
    }


CHANGES = [
    pytest.param("AAAAAA", "AAAAAA", {}, id="nothing changes"),
    pytest.param("AABBBB", "AABBBB", {}, id="a mixture that is old is no change"),
    pytest.param("BAAAAA", "AAAAAA", {"B": ("n0", "n1n2n3n4n5")}, id="a first node"),
    pytest.param("BBBBBA", "AAAAAA", {"B": ("n0n1n2n3n4", "n5")}, id="nearly done"),
    pytest.param("BBBBBB", "AAAAAA", {"B": ("n0n1n2n3n4n5", "")}, id="done: nothing is stable"),
    pytest.param("BBBAAA", "BAAAAA", {"B": ("n0n1n2", "n3n4n5")}, id="early ones count, too"),
    pytest.param("AAAAAB", "AAAABB", {}, id="going back to what most had is no change"),
    pytest.param("BCAAAA", "AAAAAA", {"B": ("n0", "n1n2n3n4n5"), "C": ("n1", "n0n2n3n4n5")},
                 id="two changes at once"),
    pytest.param("BAAAA.", "AAAAA.", {"B": ("n0", "n1n2n3n4")}, id="a node that tells nothing"),
    pytest.param("BAAAAA", ".AAAAA", {"B": ("n0", "n1n2n3n4n5")}, id="a new node with a new value"),
    pytest.param("BAAAAA", "......", {"B": ("n0", "n1n2n3n4n5")}, id="no history: the rarer value"),
    pytest.param("BBBAAA", "......", {"B": ("n0n1n2", "n3n4n5")}, id="no history: the newer name"),
    pytest.param("......", "AAAAAA", {}, id="nothing is told now"),
]  # fmt: skip


@pytest.mark.parametrize(("now", "before", "wanted"), CHANGES)
def test_the_cohort_of_a_change(now, before, wanted):
    assert cohorts(now, before) == wanted


def test_a_node_that_changed_within_the_window_is_in_neither_cohort():
    found = cohorts("BBAAAA", "AAAAAA", settled="BAAAAA")
    assert found == {"B": ("n0", "n2n3n4n5")}


def test_a_node_with_two_values_is_in_neither_cohort():
    now = drivers("BAAAAA") | {"n5": {"driver_version": "A,B"}}
    found = list(
        find_fact_changes(NODES, "driver_version", now=now, settled=now, before=drivers("AAAAAA"))
    )
    assert [c.value for c in found] == ["B"]
    assert "n5" not in found[0].canary.nodes | found[0].stable.nodes


def test_skus_and_pools_are_compared_among_themselves():
    nodes = [*NODES[:3], *(replace(n, pool="infer") for n in NODES[3:])]
    found = list(
        find_fact_changes(
            nodes,
            "driver_version",
            now=drivers("BAABBB"),
            settled=drivers("BAABBB"),
            before=drivers("AAABBB"),
        )
    )
    assert [c.scope for c in found] == ["driver_version=B sku=h100 pool=train"]
    assert found[0].stable.nodes == {"n1", "n2"}


def test_versions_compare_as_numbers():
    assert version_key("580.95.05") > version_key("580.9.1")
    assert version_key("6.8.0-45-generic") > version_key("6.8.0-9-generic")
    assert version_key("weird") < version_key("1")


def test_a_mixture_names_what_part_of_a_pool_has():
    seen = observation(nodes=NODES, facts=drivers("BAAAAA"))
    assert mixture(seen, ["driver_version"]) == (
        "driver_version=A sku=h100 pool=train",
        "driver_version=B sku=h100 pool=train",
    )
    assert mixture(observation(nodes=NODES, facts=drivers("AAAAAA")), ["driver_version"]) == ()


# --------------------------------------------------------------------------- deploys


def pods(kind, name, revision, nodes, *, age_s, label="pod-template-hash"):
    owner = f"{name}-{revision}" if kind == "ReplicaSet" else name
    return [
        Pod(
            "ai",
            f"{owner}-{i}",
            f"uid-{owner}-{i}",
            node=n,
            labels={label: revision},
            owners=(Owner(kind, owner, "uid", is_controller=True),),
            created_at=NOW - timedelta(seconds=age_s),
        )
        for i, n in enumerate(nodes)
    ]


def deploys(*groups):
    seen = replace(observation(nodes=NODES), pods=tuple(p for g in groups for p in g))
    return list(find_deploys(seen, lookback_s=3600))


def test_the_newest_pods_of_a_rollout_are_the_canary():
    old = pods("ReplicaSet", "chat", "aaa", ["n1", "n2"], age_s=90000)
    new = pods("ReplicaSet", "chat", "bbb", ["n3"], age_s=600)
    (found,) = deploys(old, new)
    assert found.scope == "deploy=ReplicaSet/ai/chat@bbb"
    assert found.canary.pods == {("ai", "chat-bbb-0")}
    assert found.stable.pods == {("ai", "chat-aaa-0"), ("ai", "chat-aaa-1")}
    assert found.nodes == {"n3"}


@pytest.mark.parametrize(("minutes", "found"), [(45, 1), (90, 0)])
def test_a_rollout_is_new_for_an_hour(minutes, found):
    old = pods("ReplicaSet", "chat", "aaa", ["n1", "n2"], age_s=90000)
    new = pods("ReplicaSet", "chat", "bbb", ["n3"], age_s=minutes * 60)
    seen = replace(observation(nodes=NODES), pods=(*old, *new))
    looked = find_deploys(seen, lookback_s=POLICY.canary.deploy_lookback_s)
    assert len(list(looked)) == found


def test_of_a_daemon_set_the_nodes_are_compared():
    how = {"label": "controller-revision-hash"}
    old = pods("DaemonSet", "driver", "aaa", ["n1", "n2"], age_s=90000, **how)
    new = pods("DaemonSet", "driver", "bbb", ["n3"], age_s=600, **how)
    (found,) = deploys(old, new)
    assert (found.canary.nodes, found.stable.nodes) == ({"n3"}, {"n1", "n2"})


@pytest.mark.parametrize(
    "groups",
    [
        pytest.param([pods("ReplicaSet", "chat", "aaa", ["n1"], age_s=60)], id="one revision"),
        pytest.param(
            [
                pods("ReplicaSet", "chat", "aaa", ["n1"], age_s=90000),
                pods("ReplicaSet", "chat", "bbb", ["n2"], age_s=7200),
            ],
            id="two that have been side by side for long",
        ),
        pytest.param(
            [
                pods("ReplicaSet", "chat", "aaa", ["n1"], age_s=90000),
                pods("ReplicaSet", "chat", "bbb", ["web-1"], age_s=60),
            ],
            id="new pods on no GPU node",
        ),
        pytest.param(
            [
                pods("ReplicaSet", "chat", "aaa", ["n1"], age_s=90000),
                pods("ReplicaSet", "other", "bbb", ["n2"], age_s=60),
            ],
            id="two owners",
        ),
    ],
)
def test_no_deploy(groups):
    assert deploys(*groups) == []


# --------------------------------------------------------------------------- holding repairs


def advice(word=Advice.ROLL_BACK, *, value="B", **changes):
    detail = {"what": "driver_version", "value": value, "sku": "h100", "pool": "train"}
    made = ChangeAdvice(
        1, f"driver_version={value}", word, "errors", frozenset({"n0"}), detail, NOW, NOW
    )
    return replace(made, **changes)


def held(given, facts, node="n0"):
    """(what is recommended before, after, the verdict, the incidents)."""
    accused = [xid(79, node=node)]
    more = {"nodes": NODES, "facts": facts}
    before = judged(*accused, **more)
    seen = observation(accused, NODES, facts=facts)
    after = hold_changes(before, seen, [given])
    assert before.verdict(node).recommended_action in DISRUPTIVE
    return after.verdict(node), after


def test_no_node_with_a_change_to_roll_back_is_repaired():
    verdict, after = held(advice(), drivers("BAAAAA"))
    assert verdict.recommended_action is Action.REVIEW
    assert verdict.failure_class is FailureClass.CHANGE_INDUCED
    assert verdict.refusal is RefusalReason.COMMON_CAUSE
    assert [i.nodes for i in after.incidents] == [("n0",)]
    assert "errors" in verdict.reason


@pytest.mark.parametrize(
    ("given", "facts", "node"),
    [
        pytest.param(advice(Advice.PROCEED), drivers("BAAAAA"), "n0", id="it may proceed"),
        pytest.param(advice(Advice.CONTINUE), drivers("BAAAAA"), "n0", id="nothing is known yet"),
        pytest.param(advice(closed_at=NOW), drivers("BAAAAA"), "n0", id="the change is gone"),
        pytest.param(advice(), drivers("BAAAAA"), "n1", id="another node"),
        pytest.param(advice(), drivers("AAAAAA"), "n0", id="the node was rolled back"),
        pytest.param(advice(), {}, "n1", id="unknown, and never of the cohort"),
    ],
)
def test_other_repairs_go_on(given, facts, node):
    verdict, after = held(given, facts, node)
    assert verdict.recommended_action in DISRUPTIVE
    assert after.incidents == ()


def test_a_node_of_the_cohort_that_tells_nothing_any_more_is_held():
    assert held(advice(), {})[0].recommended_action is Action.REVIEW
