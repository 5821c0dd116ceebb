"""Every guardrail: what it refuses, and what it lets pass."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from breakfix.model import (
    Action,
    Budget,
    Condition,
    FailureClass,
    HaltLevel,
    NodeState,
    Owner,
    RefusalReason,
    ScopeKind,
    Taint,
    Toleration,
)
from breakfix.policy import Share
from tests.fakes_cluster import make_node, make_pod
from tests.unit.plan_world import (
    NOW,
    case,
    fleet,
    healthy,
    plan,
    policy,
    record,
    said,
    verdict,
)

TABLE = (Path(__file__).resolve().parents[2] / "docs/policy.md").read_text("utf-8").splitlines()
NOT_READY = (Condition("Ready", "False"),)
WEB = {"matchLabels": {"app": "web"}}


def node(**changes):
    """Node n0 so, and three like it in racks of their own."""
    return (make_node("n0", rack="r0", **changes), *fleet()[1:])


def pods(*some):
    return {"pods": some}


def budget(allowed=0, **changes):
    return Budget("work", "web", WEB, allowed, **changes)


@pytest.mark.parametrize(
    ("seen", "answer"),
    [
        pytest.param({}, "admitted", id="a sure fault with room is admitted"),
        pytest.param({"halt": HaltLevel.DISRUPTION}, "halted", id="halt holds it"),
        pytest.param({"halt": HaltLevel.ALL}, "halted", id="halt all holds it"),
        pytest.param(
            {"confirmed": {"n1": "two labels"}},
            "not_corroborated",
            id="nothing but one label says whose metrics these are",
        ),
        pytest.param(
            {"verdicts": [verdict("n0", failure_class=FailureClass.DISK)]},
            "mode_recommend",
            id="a class that policy only recommends is not done",
        ),
        pytest.param(
            {"nodes": node(labels={"node-role.kubernetes.io/control-plane": ""})},
            "protected",
            id="a control-plane node is never a target",
        ),
        pytest.param(
            pods(make_pod(node="n0", labels={"app.kubernetes.io/name": "prometheus"})),
            "protected",
            id="nor the node that runs Prometheus",
        ),
        pytest.param(
            pods(
                make_pod(
                    node="n0", labels={"app.kubernetes.io/name": "prometheus"}, phase="Succeeded"
                )
            ),
            "admitted",
            id="a protected pod that has finished protects nothing",
        ),
        pytest.param(
            {"nodes": node(labels={"breakfix.dev/exclude": "true"})},
            "excluded",
            id="an exclusion label",
        ),
        pytest.param(
            {"nodes": node(labels={"breakfix.dev/exclude": "false"})},
            "admitted",
            id="another value of that label",
        ),
        pytest.param(
            {"nodes": node(labels={"nvidia.com/gpu-driver-upgrade-state": "drain-required"})},
            "other_owner",
            id="a driver upgrade has the node",
        ),
        pytest.param(
            {"nodes": node(labels={"nvidia.com/gpu-driver-upgrade-state": "upgrade-done"})},
            "admitted",
            id="a driver upgrade is done with it",
        ),
        pytest.param(
            {"nodes": node(labels={"nvidia.com/gpu-driver-upgrade-state": "upgrade-required"})},
            "admitted",
            id="a driver upgrade will want it",
        ),
        pytest.param(
            {"nodes": node(labels={"nvidia.com/gpu-driver-upgrade-state": "reboot-required"})},
            "other_owner",
            id="a state of the driver upgrade that nobody here knows",
        ),
        pytest.param(
            {"nodes": node(labels={"nvidia.com/gpu-driver-upgrade-state": ""})},
            "admitted",
            id="a driver upgrade that says nothing",
        ),
        pytest.param(
            {"nodes": node(labels={"nvidia.com/gpu.deploy.dcgm": "paused-for-driver-upgrade"})},
            "other_owner",
            id="the driver manager has paused an operand",
        ),
        pytest.param(
            {
                "nodes": node(annotations={"example.com/repair": "x"}),
                "rules": policy(hands_off_annotations=["example.com/repair"]),
            },
            "other_owner",
            id="another tool's annotation",
        ),
        pytest.param(
            {"nodes": node(is_unschedulable=True)}, "foreign_cordon", id="somebody else cordoned it"
        ),
        pytest.param(
            {
                "nodes": node(
                    is_unschedulable=True, annotations={"breakfix.dev/cordoned-by-us": "true"}
                )
            },
            "admitted",
            id="a cordon of ours that outlived its case",
        ),
        pytest.param(
            {"records": [record("n0", last_ended_at=NOW - timedelta(minutes=9))]},
            "cooldown",
            id="a case of it ended nine minutes ago",
        ),
        pytest.param(
            {"records": [record("n0", last_ended_at=NOW - timedelta(minutes=10))]},
            "admitted",
            id="a case of it ended ten minutes ago",
        ),
        pytest.param(
            {
                "records": [record("n0", last_ended_at=NOW)],
                "cases": [case("n0", NodeState.RETURNING)],
            },
            "admitted",
            id="a recurrence under watch does not wait for the cooldown",
        ),
        pytest.param({"cases": [case("n0")]}, "nothing", id="a node at work on is no candidate"),
        pytest.param(
            {"records": [record("n0", NodeState.ESCALATED)]},
            "nothing",
            id="an escalated node is people's",
        ),
        pytest.param(
            {"verdicts": [verdict("n0", refusal=RefusalReason.COMMON_CAUSE)]},
            "common_cause",
            id="what decide refused stays refused",
        ),
        pytest.param(
            {"verdicts": [verdict("n0", action=Action.REVIEW)]},
            "nothing",
            id="a review takes nobody out",
        ),
        pytest.param(
            pods(make_pod(node="n0", owners=())), "pod_refused", id="a pod nobody recreates"
        ),
        pytest.param(
            pods(make_pod(node="n0", has_disk_empty_dir=True)),
            "pod_refused",
            id="a pod with data on disk",
        ),
        pytest.param(
            pods(make_pod(node="n0", owners=(), labels={"breakfix.dev/case": "c"})),
            "admitted",
            id="a repair pod of ours is no workload",
        ),
    ],
)
def test_a_candidate_is_judged_by_guardrails(seen, answer):
    assert said(plan(**seen)) == answer


@pytest.mark.parametrize(
    ("budgets", "pod", "answer"),
    [
        pytest.param([budget(0)], {}, "budget", id="a budget that allows nothing holds it"),
        pytest.param([budget(1)], {}, "admitted", id="one that allows one does not"),
        pytest.param(
            [budget(1, is_observed=False)], {}, "budget", id="a stale budget allows nothing"
        ),
        pytest.param([budget(-1)], {}, "budget", id="nor does a negative one"),
        pytest.param(
            [budget(0)], {"is_ready": False}, "admitted", id="a pod that is not ready bypasses it"
        ),
        pytest.param([budget(0)], {"phase": "Succeeded"}, "admitted", id="a finished pod too"),
        pytest.param([budget(0)], {"is_terminating": True}, "admitted", id="a terminating pod too"),
        pytest.param([budget(0)], {"labels": {"app": "db"}}, "admitted", id="other pods'"),
        pytest.param([budget(0)], {"namespace": "other"}, "admitted", id="other namespaces'"),
        pytest.param(
            [replace(budget(0), selector=None)], {}, "admitted", id="one that selects no pod"
        ),
        pytest.param([replace(budget(0), selector={})], {}, "budget", id="one that selects all"),
        pytest.param(
            [budget(1), replace(budget(0), name="web-2")], {}, "budget", id="the worse of two"
        ),
    ],
)
def test_budgets(budgets, pod, answer):
    assert said(plan(pods=[make_pod(node="n0", **pod)], budgets=tuple(budgets))) == answer


def test_two_nodes_of_one_plan_share_what_a_budget_allows():
    web = [make_pod(f"web-{i}", f"n{i}") for i in range(2)]
    made = plan(("n0", "n1"), pods=web, budgets=(budget(1),))
    assert [i.node for i in made.intents] == ["n0"]
    assert [(r.node, r.reason) for r in made.refusals] == [("n1", RefusalReason.BUDGET)]
    assert len(plan(("n0", "n1"), pods=web, budgets=(budget(2),)).intents) == 2


# --------------------------------------------------------------------------- scopes


@pytest.mark.parametrize(
    ("share", "size", "allowed"),
    [
        pytest.param(Share(share=0.1), 1, 0, id="a tenth of a single node is none"),
        pytest.param(Share(share=0.1), 2, 1, id="a tenth of two is one"),
        pytest.param(Share(share=0.1), 19, 1, id="a tenth of nineteen is one"),
        pytest.param(Share(share=0.1), 20, 2, id="a tenth of twenty is two"),
        pytest.param(Share(share=0.29), 100, 29, id="no loss to floating point"),
        pytest.param(Share(share=0.0), 100, 0, id="no share is none"),
        pytest.param(Share(nodes=0), 100, 0, id="zero nodes is none"),
        pytest.param(Share(nodes=3), 2, 2, id="no more than there are"),
        pytest.param(Share(share=0.5, nodes=3), 100, 3, id="the smaller of both"),
        pytest.param(Share(share=1.0), 1, 1, id="all of one"),
    ],
)
def test_a_share_of_a_scope(share, size, allowed):
    assert share.of(size) == allowed


def scoped(kind, value, **changes):
    return [make_node(f"n{i}", **{"rack": f"r{i}", kind: value, **changes}) for i in range(4)]


@pytest.mark.parametrize("kind", ["pool", "rack", "sku", "fabric"])
def test_one_at_a_time_in(kind):
    rules = policy(out={kind: {"nodes": 1}})
    made = plan(("n0", "n1"), nodes=scoped(kind, "same"), rules=rules)
    assert [i.node for i in made.intents] == ["n0"]
    (refusal,) = made.refusals
    assert refusal.reason is RefusalReason.SCOPE_FULL
    assert (refusal.scope.kind, refusal.scope.value) == (ScopeKind(kind), "same")
    assert "n0" in refusal.text


@pytest.mark.parametrize(
    ("change", "records", "cases"),
    [
        pytest.param({"is_unschedulable": True}, (), (), id="cordoned by anybody"),
        pytest.param({"conditions": NOT_READY}, (), (), id="not ready"),
        pytest.param({"conditions": ()}, (), (), id="of unknown readiness"),
        pytest.param({}, [record("n1", NodeState.ESCALATED)], (), id="escalated by the ledger"),
        pytest.param({}, (), [case("n1")], id="under a case, not yet cordoned"),
    ],
)
def test_a_rack_mate_uses_up_the_place_when(change, records, cases):
    nodes = [make_node("n0", rack="r"), make_node("n1", rack="r", **change), *fleet()[2:]]
    rules = policy(out={"rack": {"nodes": 1}})
    made = plan(nodes=nodes, rules=rules, records=records, cases=cases)
    assert said(made) == "scope_full"


def test_a_rack_mate_under_watch_leaves_the_place_free():
    nodes = [make_node("n0", rack="r"), make_node("n1", rack="r"), *fleet()[2:]]
    cases = [case("n1", NodeState.RETURNING)]
    made = plan(nodes=nodes, rules=policy(out={"rack": {"nodes": 1}}), cases=cases)
    assert said(made) == "admitted"


def test_a_node_that_is_itself_not_ready_does_not_stand_in_its_own_way():
    rules = policy(out={"rack": {"nodes": 1}})
    assert said(plan(nodes=node(conditions=NOT_READY), rules=rules)) == "admitted"


def test_the_share_of_the_fleet_has_a_reason_of_its_own():
    made = plan(("n0", "n1", "n2"), rules=policy(out={"fleet": {"share": 0.5}}))
    assert [i.node for i in made.intents] == ["n0", "n1"]
    assert [r.reason for r in made.refusals] == [RefusalReason.FLEET_SHARE]


def test_nodes_that_are_not_judged_make_no_share_bigger():
    nodes = [*fleet(2), *(make_node(f"cpu-{i}") for i in range(50))]
    made = plan(
        ("n0", "n1"),
        nodes=nodes,
        verdicts=[verdict("n0"), verdict("n1")],
        rules=policy(out={"fleet": {"share": 0.5}}),
    )
    assert len(made.intents) == 1


# --------------------------------------------------------------------------- headroom

TWO = fleet(2)


def gpu_pod(name, on, gpus=8, **changes):
    return make_pod(name, on, gpus=gpus, **changes)


@pytest.mark.parametrize(
    ("nodes", "some", "free"),
    [
        pytest.param(TWO, [], 8, id="an idle peer has room"),
        pytest.param(TWO, [gpu_pod("p", "n0")], 0, id="its own pods take the peer's GPUs"),
        pytest.param(TWO, [gpu_pod("p", "n0"), gpu_pod("q", "n1", 1)], -1, id="which are in use"),
        pytest.param(
            TWO,
            [gpu_pod("p", "n0", phase="Succeeded")],
            8,
            id="finished pods need no place",
        ),
        pytest.param(TWO, [gpu_pod("p", "n1", phase="Failed")], 8, id="finished pods hold none"),
        pytest.param(
            TWO, [gpu_pod("p", "", 4, phase="Pending")], 4, id="a pending pod comes first"
        ),
        pytest.param(
            TWO,
            [gpu_pod("p", "", 4, phase="Pending", node_selector={"sku": "A100"})],
            8,
            id="a pending pod that wants other nodes does not",
        ),
        pytest.param(
            fleet(2, labels={"zone": "z"}),
            [gpu_pod("p", "", 4, phase="Pending", node_selector={"zone": "z"})],
            4,
            id="a pending pod that wants these nodes does",
        ),
        pytest.param(
            TWO,
            [
                gpu_pod("p", "n0", is_terminating=True),
                gpu_pod("q", "", phase="Pending"),
            ],
            0,
            id="a pod that is going is not counted beside its successor",
        ),
        pytest.param([TWO[0], replace(TWO[1], sku="A100")], [], 0, id="other SKUs give no room"),
        pytest.param([TWO[0], replace(TWO[1], pool="x")], [], 0, id="other pools give no room"),
        pytest.param(
            [TWO[0], replace(TWO[1], is_unschedulable=True)], [], 0, id="cordoned nodes neither"
        ),
        pytest.param(
            [TWO[0], replace(TWO[1], gpus_allocatable=5)], [], 5, id="only allocatable GPUs count"
        ),
        pytest.param(
            [*fleet(2), replace(fleet(3)[2], conditions=NOT_READY)],
            [gpu_pod("p", "n2", 3)],
            5,
            id="pods of a node that went down need a place, too",
        ),
        pytest.param(
            [*fleet(2), replace(fleet(3)[2], is_unschedulable=True)],
            [gpu_pod("p", "n2", 3)],
            8,
            id="pods on a node that a person cordoned stay there",
        ),
    ],
)
def test_free_gpus_after(nodes, some, free):
    made = plan(nodes=nodes, pods=some, rules=policy(headroom_gpus=0))
    assert said(made) == ("admitted" if free >= 0 else "headroom")
    if made.intents:
        assert made.intents[0].impact.gpus_free_after == free
    else:
        assert f"{free} free GPUs" in made.refusals[0].text


def test_headroom_is_kept_for_a_case_that_is_not_drained_yet():
    some = [gpu_pod("p", "n0"), gpu_pod("q", "n1")]
    made = plan(
        ("n1",),
        nodes=[replace(fleet()[0], is_unschedulable=True), *fleet(3)[1:]],
        pods=some,
        cases=[case("n0")],
    )
    assert said(made) == "headroom"


def test_the_second_node_of_a_plan_finds_the_first_ones_pods_placed():
    some = [gpu_pod("p", "n0"), gpu_pod("q", "n1")]
    made = plan(("n0", "n1"), nodes=fleet(3), pods=some)
    assert [i.node for i in made.intents] == ["n0"]
    assert [r.reason for r in made.refusals] == [RefusalReason.HEADROOM]


def test_policy_may_want_gpus_left_free():
    assert said(plan(nodes=TWO, rules=policy(headroom_gpus=8))) == "admitted"
    assert said(plan(nodes=TWO, rules=policy(headroom_gpus=9))) == "headroom"


def test_pods_of_daemon_sets_need_no_other_place():
    pod = gpu_pod("p", "n0", owners=(Owner("DaemonSet", "ds", "u"),))
    made = plan(nodes=TWO, pods=[pod], daemon_sets=frozenset({("work", "ds")}))
    assert made.intents[0].impact.gpus_free_after == 8
    assert made.intents[0].impact.pods_evicted == 0


def test_every_refusal_has_a_sentence_and_names_what_was_wanted():
    made = plan(halt=HaltLevel.ALL, verdicts=[verdict("n0"), healthy("n1")])
    (refusal,) = made.refusals
    assert refusal.text
    assert (refusal.failure_class, refusal.action) == (
        FailureClass.GPU_OFF_BUS,
        Action.REBOOT_NODE,
    )


# --------------------------------------------------------------------------- how limits round


@pytest.mark.parametrize(
    ("share", "allowed"),
    [
        pytest.param({"share": 0.1}, (0, 1, 1, 1, 2), id="a tenth"),
        pytest.param({"share": 0.2}, (0, 1, 1, 2, 5), id="a fifth"),
        pytest.param({"nodes": 1}, (1, 1, 1, 1, 1), id="one"),
        pytest.param({"nodes": 0}, (0, 0, 0, 0, 0), id="none"),
        pytest.param({"share": 0.2, "nodes": 3}, (0, 1, 1, 2, 3), id="the smaller of both"),
        pytest.param({"in_service": 2}, (0, 0, 1, 8, 23), id="two stay in service"),
        pytest.param({"in_service_share": 0.5}, (0, 1, 1, 5, 12), id="half stays, rounded up"),
        pytest.param({"share": 0.2, "in_service": 9}, (0, 0, 0, 1, 5), id="a share and a floor"),
    ],
)
def test_the_table_of_the_handbook(share, allowed):
    made = Share(**share)
    assert tuple(made.of(size) for size in (1, 2, 3, 10, 25)) == allowed
    row = next(x for x in TABLE if x.startswith(f"| `{words(share)}` |"))
    assert row == f"| `{words(share)}` | " + " | ".join(map(str, allowed)) + " |"


def words(share):
    return "{" + ", ".join(f"{k}: {v:g}" for k, v in share.items()) + "}"


# --------------------------------------------------------------------------- attempts, cooldown


@pytest.mark.parametrize(
    ("attempts", "minutes", "answer"),
    [
        pytest.param(1, 9, "cooldown", id="after one repair ten minutes"),
        pytest.param(1, 10, "admitted", id="and no more"),
        pytest.param(2, 19, "cooldown", id="after two twenty"),
        pytest.param(2, 20, "admitted", id="and no more than these"),
        pytest.param(4, 79, "cooldown", id="after four eighty"),
        pytest.param(60, 24 * 60 - 1, "cooldown", id="never longer than a day"),
        pytest.param(60, 24 * 60, "admitted", id="but a day"),
    ],
)
def test_the_cooldown_grows_with_the_repairs(attempts, minutes, answer):
    ended = NOW - timedelta(minutes=minutes)
    made = plan(records=[record("n0", last_ended_at=ended, attempts=attempts)])
    assert said(made) == answer


@pytest.mark.parametrize(
    ("by_class", "action"),
    [
        pytest.param({FailureClass.GPU_OFF_BUS: 1}, Action.REBOOT_NODE, id="once of this class"),
        pytest.param({FailureClass.GPU_OFF_BUS: 2}, Action.HOLD_FOR_HARDWARE, id="twice of it"),
        pytest.param({FailureClass.GSP: 2}, Action.REBOOT_NODE, id="twice of another"),
        pytest.param(
            {FailureClass.GSP: 3, FailureClass.DISK: 1}, Action.HOLD_FOR_HARDWARE, id="four in all"
        ),
    ],
)
def test_attempts_are_counted_for_the_node_and_for_the_class(by_class, action):
    rules = policy(max_attempts=4, max_attempts_of_class=2, cooldown="0s")
    known = record("n0", attempts=sum(by_class.values()), attempts_by_class=by_class)
    assert plan(records=[known], rules=rules).intents[0].action is action


# --------------------------------------------------------------------------- modes, pools


def with_mode(mode):
    raw = policy().model_dump(mode="json", by_alias=True)
    raw["classes"]["gpu_off_bus"]["mode"] = mode
    return type(policy()).model_validate(raw)


@pytest.mark.parametrize(
    ("mode", "answer"),
    [
        ("off", "mode_off"),
        ("recommend", "mode_recommend"),
        ("approve", "admitted"),
        ("auto", "admitted"),
    ],
)
def test_the_mode_of_a_class(mode, answer):
    assert said(plan(rules=with_mode(mode))) == answer


def test_the_default_policy_does_nothing_disruptive_unasked():
    modes = {rule.mode for rule in policy().classes.values()}
    assert modes <= {"off", "recommend", "approve"}


def test_a_protected_pool_is_never_a_target():
    assert said(plan(rules=policy(protected_pools=["train"]))) == "protected"
    assert said(plan(rules=policy(protected_pools=["serve"]))) == "admitted"


# --------------------------------------------------------------------------- does each pod fit


def taint(effect="NoSchedule"):
    return (Taint("team", effect, "a"),)


BIG = gpu_pod("big", "n0", 4)
ONES = [gpu_pod(f"one-{i}", f"n{i}", 5) for i in (1, 2)]


@pytest.mark.parametrize(
    ("nodes", "some", "answer"),
    [
        pytest.param(fleet(3), [BIG, ONES[0]], "admitted", id="one node has room for it"),
        pytest.param(fleet(3), [BIG, *ONES], "headroom", id="six are free, on no node four"),
        pytest.param(
            [TWO[0], replace(TWO[1], taints=taint())], [BIG], "headroom", id="a taint keeps it off"
        ),
        pytest.param(
            [TWO[0], replace(TWO[1], taints=taint("PreferNoSchedule"))],
            [BIG],
            "admitted",
            id="one that only prefers does not",
        ),
        pytest.param(
            [TWO[0], replace(TWO[1], taints=taint())],
            [replace(BIG, tolerations=(Toleration("team", "Equal", "a"),))],
            "admitted",
            id="it tolerates the taint",
        ),
        pytest.param(
            [TWO[0], replace(TWO[1], taints=taint())],
            [replace(BIG, tolerations=(Toleration("team", "Equal", "b"),))],
            "headroom",
            id="it tolerates another value",
        ),
        pytest.param(
            [TWO[0], replace(TWO[1], taints=taint())],
            [replace(BIG, tolerations=(Toleration(operator="Exists"),))],
            "admitted",
            id="it tolerates everything",
        ),
        pytest.param(
            TWO, [replace(BIG, node_selector={"zone": "z"})], "headroom", id="its selector does"
        ),
        pytest.param(
            TWO,
            [
                replace(
                    BIG,
                    node_terms=(
                        {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["z"]}]},
                    ),
                )
            ],
            "headroom",
            id="its affinity does",
        ),
        pytest.param(
            TWO,
            [
                replace(
                    BIG,
                    node_terms=(
                        {
                            "matchFields": [
                                {"key": "metadata.name", "operator": "In", "values": ["n1"]}
                            ]
                        },
                    ),
                )
            ],
            "admitted",
            id="its affinity names the other node",
        ),
        pytest.param(
            TWO, [replace(BIG, gpus=0, claims=1)], "headroom", id="claims are not counted"
        ),
    ],
)
def test_a_pod_that_moves_must_fit_on_one_node(nodes, some, answer):
    made = plan(nodes=nodes, pods=some)
    assert said(made) == answer
    if answer == "headroom":
        assert "work/big" in made.refusals[0].text


def test_a_site_may_ignore_claims_and_the_queue():
    claims = [replace(BIG, gpus=0, claims=1)]
    assert said(plan(nodes=TWO, pods=claims, rules=policy(headroom_claims="ignore"))) == "admitted"
    queue = [gpu_pod("p", "", 9, phase="Pending")]
    assert said(plan(nodes=TWO, pods=queue)) == "headroom"
    assert said(plan(nodes=TWO, pods=queue, rules=policy(headroom_pending=False))) == "admitted"


def test_the_rest_of_a_gang_frees_what_it_wants_again():
    gang = {"jobset.sigs.k8s.io/jobset-name": "train"}
    job = [gpu_pod(f"w{i}", f"n{i}", 8, labels=gang) for i in range(2)]
    assert said(plan(nodes=fleet(3), pods=job)) == "admitted"
    assert said(plan(nodes=fleet(2), pods=job)) == "headroom"
