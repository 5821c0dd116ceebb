"""What a drain stops: not the node's pods alone, but every group that one of them belongs to."""

from __future__ import annotations

from typing import Any

import pytest

from breakfix.model import Action, FailureClass, Impact, Owner, Pod, RefusalReason
from breakfix.plan.gangs import gang_of, gangs_by_key
from tests.fakes_cluster import make_node
from tests.unit.plan_world import BASE, healthy, plan, policy, verdict


def pod(name: str, node: str = "n1", gpus: int = 8, **changes: Any) -> Pod:
    owners = (Owner("Job", "trainer", "u1"),)
    return Pod("ml", name, f"uid-{name}", node=node, gpus=gpus, **{"owners": owners, **changes})


def labelled(**labels: str) -> Pod:
    named = {k.replace("__", "/").replace("_", "-"): v for k, v in labels.items()}
    return pod("p", labels=named, owners=(Owner("ReplicaSet", "rs", "u2"),))


@pytest.mark.parametrize(
    ("member", "gang"),
    [
        pytest.param(
            pod("p", labels={"jobset.sigs.k8s.io/jobset-name": "llama"}),
            ("JobSet", "ml", "llama"),
            id="a JobSet, not the one Job of it",
        ),
        pytest.param(
            pod("p", labels={"training.kubeflow.org/job-name": "bert"}),
            ("training job", "ml", "bert"),
            id="a PyTorchJob",
        ),
        pytest.param(
            pod(
                "p",
                labels={
                    "leaderworkerset.sigs.k8s.io/name": "vllm",
                    "leaderworkerset.sigs.k8s.io/group-index": "3",
                },
            ),
            ("LeaderWorkerSet", "ml", "vllm-3"),
            id="one group of a LeaderWorkerSet",
        ),
        pytest.param(
            pod("p", annotations={"scheduling.k8s.io/group-name": "pg-1"}),
            ("pod group", "ml", "pg-1"),
            id="a Volcano PodGroup",
        ),
        pytest.param(
            pod("p", labels={"kueue.x-k8s.io/pod-group-name": "g"}, owners=()),
            ("Kueue pod group", "ml", "g"),
            id="plain pods that Kueue admits together",
        ),
        pytest.param(
            pod("p", owners=(Owner("StatefulSet", "db", "u3"),)),
            ("StatefulSet", "ml", "db"),
            id="the replicas of a StatefulSet",
        ),
        pytest.param(
            pod("p", annotations={"kueue.x-k8s.io/workload": "job-trainer-1a2b3"}),
            ("Kueue workload", "ml", "job-trainer-1a2b3"),
            id="a workload that Kueue admitted as a whole",
        ),
        pytest.param(
            pod(
                "p",
                labels={"jobset.sigs.k8s.io/jobset-name": "llama"},
                annotations={"kueue.x-k8s.io/workload": "jobset-llama-1a2b3"},
            ),
            ("JobSet", "ml", "llama"),
            id="a JobSet under Kueue, by the name that people know",
        ),
        pytest.param(
            pod("p", labels={"volcano.sh/job-name": "vj"}),
            ("Volcano job", "ml", "vj"),
            id="a Volcano job",
        ),
        pytest.param(
            pod("p", labels={"pod-group.scheduling.sigs.k8s.io": "old"}),
            ("pod group", "ml", "old"),
            id="a pod group of an older scheduler",
        ),
        pytest.param(
            pod("p", annotations={"pod-group-name": "pg-kai"}),
            ("pod group", "ml", "pg-kai"),
            id="a pod group of KAI",
        ),
        pytest.param(
            pod("p", labels={"grove.io/podgang": "serve-0"}),
            ("PodGang", "ml", "serve-0"),
            id="a PodGang of Grove",
        ),
        pytest.param(
            pod("p", owners=(Owner("PyTorchJob", "bert", "u4"),)),
            ("PyTorchJob", "ml", "bert"),
            id="a PyTorchJob by its owner alone",
        ),
        pytest.param(pod("p"), ("Job", "ml", "trainer"), id="the pods of a Job"),
        pytest.param(labelled(app="web"), None, id="a Deployment's pod serves alone"),
        pytest.param(pod("p", owners=()), None, id="a bare pod"),
    ],
)
def test_which_gang_a_pod_belongs_to(member: Pod, gang: tuple[str, str, str] | None) -> None:
    assert gang_of(member) == gang


def test_a_gang_is_all_its_live_pods_wherever_they_are() -> None:
    pods = [
        pod("a", "n1"),
        pod("b", "n2"),
        pod("waiting", ""),
        pod("done", "n3", phase="Succeeded"),
        pod("other", "n4", owners=(Owner("Job", "else", "u9"),)),
    ]
    gang = gangs_by_key(pods)["Job", "ml", "trainer"]
    assert (gang.pods, gang.gpus, gang.nodes) == (3, 24, {"n1", "n2"})


def impact(pods: list[Pod], **approvals: Any) -> tuple[Impact, bool]:
    raw = BASE.model_dump(mode="json", by_alias=True)
    raw["limits"]["out"] = {}
    raw["classes"]["gpu_off_bus"]["mode"] = "auto"
    raw["approvals"] |= approvals
    nodes = [make_node(f"n{i}", gpus_allocatable=8, gpus_capacity=8) for i in range(1, 6)]
    made = plan(
        broken=("n1",), nodes=nodes, pods=tuple(pods), rules=type(BASE).model_validate(raw),
        daemon_sets=frozenset({("ml", "agent")}),
    )  # fmt: skip
    (intent,) = made.intents
    return intent.impact, intent.needs_approval


def test_the_cost_of_a_node_is_the_whole_group_it_serves() -> None:
    cost, _ = impact([pod("a", "n1"), pod("b", "n2"), pod("c", "n3")])
    assert (cost.pods_evicted, cost.gpus_stopped, cost.gang_gpus) == (1, 24, 24)
    assert cost.gangs == ("Job ml/trainer (3 pods, 24 GPUs on 3 nodes)",)


def test_a_group_on_the_node_alone_is_just_its_pods() -> None:
    cost, needs_approval = impact([pod("a", "n1", 4), pod("b", "n1", 4)])
    assert (cost.gpus_stopped, cost.gangs, needs_approval) == (8, (), False)


@pytest.mark.parametrize(
    ("gpus", "allowed", "asks"),
    [
        pytest.param(8, 16, False, id="as large as policy lets stop unasked"),
        pytest.param(9, 16, True, id="larger"),
        pytest.param(8, 0, True, id="none may stop unasked"),
    ],
)
def test_a_large_gang_is_asked_about_whatever_the_mode(gpus: int, allowed: int, asks: bool) -> None:
    _, needs_approval = impact([pod("a", "n1", 8), pod("b", "n2", gpus)], gang_gpus=allowed)
    assert needs_approval is asks


def test_what_serves_alone_beside_a_small_gang_is_no_part_of_it() -> None:
    alone = pod("alone", "n1", 6, owners=(Owner("ReplicaSet", "rs", "u2"),))
    cost, needs_approval = impact([pod("a", "n1", 2), pod("b", "n2", 2), alone], gang_gpus=4)
    assert (cost.gpus_stopped, cost.gang_gpus, needs_approval) == (10, 4, False)


def test_what_is_only_recommended_says_what_it_would_stop() -> None:
    raw = BASE.model_dump(mode="json", by_alias=True)
    raw["classes"]["gpu_off_bus"]["mode"] = "recommend"
    nodes = [make_node(f"n{i}", gpus_allocatable=8, gpus_capacity=8) for i in range(1, 6)]
    pods = (pod("a", "n1"), pod("b", "n2"), pod("c", "n3"))
    made = plan(broken=("n1",), nodes=nodes, pods=pods, rules=type(BASE).model_validate(raw))
    (refusal,) = made.refusals
    assert refusal.impact is not None
    assert (refusal.reason, refusal.impact.gpus_stopped) == (RefusalReason.MODE_RECOMMEND, 24)


def test_pods_that_stay_stop_no_gang() -> None:
    daemon = pod("d", "n1", 0, owners=(Owner("DaemonSet", "agent", "u5"),),
                 labels={"ray.io/cluster": "r"})  # fmt: skip
    elsewhere = pod("e", "n2", 8, labels={"ray.io/cluster": "r"})
    cost, _ = impact([daemon, elsewhere])
    assert (cost.pods_evicted, cost.gpus_stopped, cost.gangs) == (0, 0, ())


def test_a_person_who_drains_by_hand_has_decided() -> None:
    asked = verdict("n1", failure_class=FailureClass.MANUAL, action=Action.DRAIN_ONLY)
    made = plan(
        nodes=[make_node("n1"), make_node("n2")],
        verdicts=[asked, healthy("n2")],
        rules=policy(headroom_gpus=0),
        pods=(pod("a", "n1", 0), pod("b", "n2", 8), pod("c", "n2", 0)),
    )
    (intent,) = made.intents
    assert not intent.needs_approval
    assert intent.impact.gpus_stopped == 8
