"""Which rung a pod stands on, whose turn it is, and what holds one up: tables."""

from __future__ import annotations

from datetime import timedelta

import pytest
import yaml

from breakfix.errors import SettingsError
from breakfix.leaving import Standing, budget_in, holdup, next_change, standings, turn_of
from breakfix.model import DrainRung, PodAction, RungKind
from breakfix.plan.drain_ladder import decide_drain, ladders_in_words
from breakfix.policy import parse_policy
from breakfix.policy_drain import Checkpoint, Drain
from breakfix.wiring import default_policy_text
from tests.fakes_cluster import make_pod
from tests.unit.act_world import NOW

LADDERS = {
    "timeout": "3h",
    "may_delete": True,
    "ladders": [
        {"name": "system", "namespaces": ["kube-*"], "skip": True},
        {"name": "opted", "labels": {"drain": "wait"}, "rungs": [{"do": "wait", "for": "1h"}]},
        {
            "name": "training",
            "namespaces": ["train"],
            "rungs": [
                {"do": "wait", "for": "30m"},
                {"do": "checkpoint", "for": "10m"},
                {"do": "evict", "for": "5m"},
                {"do": "delete", "for": "5m"},
            ],
        },
        {"name": "last", "namespaces": ["infra"], "order": 10, "rungs": [{"do": "evict"}]},
    ],
}
DRAIN = Drain.model_validate(LADDERS)


def decided(*pods, drain=DRAIN):
    return decide_drain(pods, daemon_sets=frozenset(), drain=drain)


def stand(*pods, minutes=0.0, since=NOW, drain=DRAIN) -> list[Standing]:
    pairs = [
        (d, p)
        for d, p in zip(decided(*pods, drain=drain), pods, strict=True)
        if d.action is PodAction.EVICT
    ]
    return list(
        standings(
            pairs,
            since=since,
            now=NOW + timedelta(minutes=minutes),
            checkpoint=Checkpoint(),
            case_id="c1",
        )
    )


# --------------------------------------------------------------------------- which ladder


@pytest.mark.parametrize(
    ("pod", "climbs"),
    [
        pytest.param(make_pod(namespace="web"), "evict", id="a pod that no ladder names"),
        pytest.param(
            make_pod(namespace="train"),
            "wait 30m, checkpoint 10m, evict 5m, delete 5m",
            id="a pod of a namespace",
        ),
        pytest.param(
            make_pod(namespace="train", labels={"drain": "wait"}), "wait 1h", id="the first wins"
        ),
    ],
)
def test_the_first_ladder_that_matches_is_the_pods(pod, climbs):
    assert decided(pod)[0].climbs == climbs


def test_a_skipped_namespace_stays_on_the_node_and_says_why():
    (decision,) = decided(make_pod(namespace="kube-system", gpus=2))
    assert (decision.action, decision.gpus) == (PodAction.SKIP, 0)
    assert "ladder system" in decision.reason


def test_a_pod_that_kubectl_refuses_is_refused_where_a_rung_removes_it():
    (bare,) = decided(make_pod(namespace="train", owners=()))
    assert bare.action is PodAction.REFUSE


def test_a_pod_that_kubectl_refuses_may_be_waited_for():
    (bare,) = decided(make_pod(owners=(), labels={"drain": "wait"}))
    assert bare.action is PodAction.EVICT
    assert "waited for, never removed" in bare.reason


def test_the_plan_counts_pods_by_ladder_and_says_nothing_of_plain_evictions():
    train = [make_pod(f"t{i}", namespace="train") for i in range(2)]
    assert ladders_in_words(decided(make_pod())) == ()
    assert ladders_in_words(decided(*train, make_pod())) == (
        "2 pods: wait 30m, checkpoint 10m, evict 5m, delete 5m",
        "1 pod: evict",
    )


@pytest.mark.parametrize(
    ("drain", "says"),
    [
        ({"rungs": [{"do": "evict"}, {"do": "wait"}]}, "needs `for`"),
        ({"rungs": [{"do": "evict", "for": "1m"}, {"do": "evict"}]}, "there twice"),
        ({"rungs": [{"do": "delete"}]}, "may_delete"),
        ({"ladders": [{"name": "x"}]}, "either rungs or skip"),
        ({"rungs": [{"do": "wait", "for": "2h"}]}, "longer than timeout"),
    ],
)
def test_a_ladder_that_makes_no_sense_is_refused_with_the_reason(drain, says):
    with pytest.raises(SettingsError, match=says):
        parse_policy(default_policy_text(), yaml.safe_dump({"drain": drain}))


# --------------------------------------------------------------------------- which rung


@pytest.mark.parametrize(
    ("minutes", "do", "until_min", "is_spent"),
    [
        (0, RungKind.WAIT, 30, False),
        (29.9, RungKind.WAIT, 30, False),
        (30, RungKind.CHECKPOINT, 40, False),
        (40, RungKind.EVICT, 45, False),
        (45, RungKind.DELETE, 50, False),
        (50, RungKind.DELETE, None, True),
        (500, RungKind.DELETE, None, True),
    ],
)
def test_each_rung_ends_at_its_time_and_the_next_begins(minutes, do, until_min, is_spent):
    (pod,) = stand(make_pod(namespace="train"), minutes=minutes)
    until = None if until_min is None else NOW + timedelta(minutes=until_min)
    assert (pod.do, pod.until, pod.is_spent) == (do, until, is_spent)


def test_an_answer_to_the_checkpoint_brings_the_next_rung_at_once():
    saved = make_pod(namespace="train", annotations={"breakfix.dev/checkpointed": "c1"})
    (pod,) = stand(saved, minutes=31)
    assert (pod.do, pod.until) == (RungKind.EVICT, NOW + timedelta(minutes=45))


def test_an_answer_to_another_case_is_none():
    stale = make_pod(namespace="train", annotations={"breakfix.dev/checkpointed": "c0"})
    assert stand(stale, minutes=31)[0].do is RungKind.CHECKPOINT


def test_a_pod_that_came_later_has_its_time_from_then():
    late = make_pod(namespace="train", created_at=NOW + timedelta(minutes=20))
    assert stand(late, minutes=45)[0].do is RungKind.WAIT


def test_a_finished_pod_waits_for_nothing():
    done = make_pod(namespace="train", phase="Succeeded")
    (pod,) = stand(done)
    assert pod.is_taken_now


def test_pods_of_a_later_order_wait_until_all_before_them_have_left():
    work, infra = make_pod("a", namespace="web"), make_pod("b", namespace="infra")
    assert [s.is_taken_now for s in stand(work, infra)] == [True, False]
    assert "waits for its turn" in stand(work, infra)[1].says()
    assert [s.is_taken_now for s in stand(infra)] == [True]


def test_a_pod_that_terminates_still_keeps_later_orders_back():
    work = make_pod("a", namespace="web", is_terminating=True)
    assert [s.is_taken_now for s in stand(work, make_pod("b", namespace="infra"))] == [False] * 2


def test_the_turn_is_the_lowest_order_at_work():
    pods = [make_pod("b", namespace="infra"), make_pod("a", namespace="web", phase="Failed")]
    assert turn_of(zip(decided(*pods), pods, strict=True)) == 10
    assert turn_of(()) == 0


def test_the_next_change_is_the_first_rungs_end():
    pods = [make_pod("a", namespace="train"), make_pod("b", labels={"drain": "wait"})]
    assert next_change(stand(*pods)) == NOW + timedelta(minutes=30)
    assert next_change(stand(make_pod())) is None


# --------------------------------------------------------------------------- what holds it up


def held_up(pod, *, seconds=0.0, is_node_ready=True, minutes=0.0):
    (standing,) = stand(pod, minutes=minutes)
    return holdup(
        standing,
        is_node_ready=is_node_ready,
        now=NOW + timedelta(seconds=seconds) + timedelta(minutes=minutes),
        deadline=NOW + timedelta(minutes=30),
        stuck_after_s=60.0,
    )


def terminating(stops_in_s, **changes):
    return make_pod(is_terminating=True, stops_by=NOW + timedelta(seconds=stops_in_s), **changes)


@pytest.mark.parametrize(
    ("pod", "how", "kind", "needs_person", "says"),
    [
        pytest.param(
            terminating(30, finalizers=("example.com/hold",)),
            {"seconds": 91},
            "finalizer",
            True,
            "example.com/hold",
            id="a finalizer keeps it past its grace",
        ),
        pytest.param(
            terminating(30),
            {"seconds": 91, "is_node_ready": False},
            "stuck_terminating",
            True,
            "kubelet of the NotReady node",
            id="nobody on the node confirms its end",
        ),
        pytest.param(
            terminating(30),
            {"seconds": 91},
            "stuck_terminating",
            True,
            "stuck Terminating",
            id="it does not stop though its node is well",
        ),
        pytest.param(
            terminating(7200),
            {},
            "long_grace",
            False,
            "longer than the drain has",
            id="its grace is longer than the drain",
        ),
        pytest.param(
            make_pod(namespace="train"),
            {"minutes": 51},
            "ladder_spent",
            True,
            "last rung",
            id="its ladder has no rung left",
        ),
    ],
)
def test_what_holds_a_pod_up_has_a_name(pod, how, kind, needs_person, says):
    blocker = held_up(pod, **how)
    assert (blocker.kind, blocker.needs_person) == (kind, needs_person)
    assert says in blocker.message


@pytest.mark.parametrize(
    ("pod", "how"),
    [
        pytest.param(terminating(30), {}, id="within its grace"),
        pytest.param(terminating(30), {"seconds": 89}, id="not long past it"),
        pytest.param(make_pod(namespace="train"), {"minutes": 35}, id="on a rung"),
    ],
)
def test_a_pod_on_its_way_is_not_blocked(pod, how):
    assert held_up(pod, **how) is None


def test_the_budget_is_read_from_the_servers_words():
    text = "The disruption budget web-pdb needs 2 healthy pods and has 2 currently"
    assert budget_in(text) == "web-pdb"
    assert budget_in("too many requests") == ""


def test_a_rung_says_its_time_as_people_write_it():
    assert [str(DrainRung(RungKind.WAIT, s)) for s in (7200, 1200, 45, 0)] == [
        "wait 2h",
        "wait 20m",
        "wait 45s",
        "wait",
    ]
