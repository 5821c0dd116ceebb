from __future__ import annotations

import pytest

from breakfix.act import guard
from breakfix.act.guard import Expected, halt_level
from breakfix.errors import ClusterError, LedgerError, Refused, StaleFence
from breakfix.model import CaseEnd, HaltLevel, Refusal, RefusalReason
from tests.unit.act_world import NOW, World, make_world


def halt_by_ledger(world: World) -> None:
    world.ledger.set_halt(HaltLevel.DISRUPTION, actor="p", reason="r", now=NOW)


def halt_by_cluster(world: World) -> None:
    world.cluster.config_maps["breakfix", "breakfix-halt"] = {"level": "disruption"}


def halt_all(world: World) -> None:
    world.cluster.config_maps["breakfix", "breakfix-halt"] = {"level": "all"}


def halt_odd(world: World) -> None:
    world.cluster.config_maps["breakfix", "breakfix-halt"] = {"level": "please stop"}


def hold(world: World) -> None:
    world.ledger.hold(world.case.id, actor="p", reason="r", now=NOW)


def end(world: World) -> None:
    world.ledger.end_case(
        world.case.id, world.case.fence, CaseEnd.ABORTED, actor="p", reason="r", now=NOW
    )


def change(**changes):
    return lambda world: world.cluster.change_node("gpu-1", **changes)


def remark(**changes):
    def apply(world: World) -> None:
        node = world.cluster.node("gpu-1")
        world.cluster.change_node("gpu-1", annotations={**node.annotations, **changes})

    return apply


@pytest.mark.parametrize(
    ("happens", "reason"),
    [
        pytest.param(halt_by_ledger, RefusalReason.HALTED, id="the ledger's kill switch"),
        pytest.param(halt_by_cluster, RefusalReason.HALTED, id="the cluster's kill switch"),
        pytest.param(halt_all, RefusalReason.HALTED, id="the kill switch at all"),
        pytest.param(halt_odd, RefusalReason.HALTED, id="a level nobody knows halts all"),
        pytest.param(World.take_over, RefusalReason.STALE_FENCE, id="another fence"),
        pytest.param(end, RefusalReason.STALE_FENCE, id="the case has ended"),
        pytest.param(hold, RefusalReason.HELD, id="a person holds the case"),
        pytest.param(
            lambda w: w.cluster.config_maps["breakfix", "breakfix-ledger"].update(ledger="other"),
            RefusalReason.UNOWNED_CLUSTER,
            id="another ledger owns the cluster",
        ),
        pytest.param(
            lambda w: w.cluster.remove_node("gpu-1"), RefusalReason.NODE_CHANGED, id="node gone"
        ),
        pytest.param(change(uid="new"), RefusalReason.NODE_CHANGED, id="another machine"),
        pytest.param(change(boot_id="b9"), RefusalReason.NODE_CHANGED, id="it has rebooted"),
        pytest.param(
            change(labels={"breakfix.dev/exclude": "true"}),
            RefusalReason.EXCLUDED,
            id="somebody excluded it",
        ),
        pytest.param(
            change(labels={"example.com/upgrade": "running"}),
            RefusalReason.OTHER_OWNER,
            id="an upgrade runs on it",
        ),
        pytest.param(
            remark(**{"example.com/in-repair": ""}), RefusalReason.OTHER_OWNER, id="other tool"
        ),
        pytest.param(
            change(is_unschedulable=False), RefusalReason.OVERRIDDEN, id="somebody uncordoned it"
        ),
        pytest.param(
            remark(**{"breakfix.dev/case": "c9"}), RefusalReason.OVERRIDDEN, id="another case's"
        ),
    ],
)
def test_says_no(happens, reason):
    world = make_world(is_quarantined=True)
    happens(world)
    with pytest.raises(Refused) as caught:
        guard.check(world.acting, world.case, "drain", Expected(boot_id="boot-gpu-1-1"))
    assert caught.value.reason is reason
    assert not world.cluster.writes()


def test_lets_the_act_go_on_when_nothing_changed():
    world = make_world(is_quarantined=True)
    node = guard.check(world.acting, world.case, "drain", Expected(boot_id="boot-gpu-1-1"))
    assert node.name == "gpu-1"


def test_asks_whether_the_reason_still_holds():
    world = make_world(is_quarantined=True)
    with pytest.raises(Refused) as caught:
        guard.check(world.acting, world.case, "d", Expected(reason_gone=lambda _: "it is healthy"))
    assert caught.value.reason is RefusalReason.REASON_GONE


def full(node):
    return Refusal(node.name, RefusalReason.SCOPE_FULL, "rack r1 is full")


def test_limits_hold_a_disruption_but_not_a_recovery():
    world = make_world(is_quarantined=True)
    with pytest.raises(Refused) as caught:
        guard.check(world.acting, world.case, "d", Expected(limit_broken=full))
    assert caught.value.reason is RefusalReason.SCOPE_FULL
    recovery = Expected(limit_broken=full, is_recovery=True)
    assert guard.check(world.acting, world.case, "release", recovery)


@pytest.mark.parametrize(("happens", "passes"), [(halt_by_ledger, True), (halt_all, False)])
def test_the_first_level_of_halt_does_not_hold_a_recovery(happens, passes):
    world = make_world(is_quarantined=True)
    happens(world)
    if passes:
        assert guard.check(world.acting, world.case, "release", Expected(is_recovery=True))
        return
    with pytest.raises(Refused):
        guard.check(world.acting, world.case, "release", Expected(is_recovery=True))


def test_a_stale_fence_is_told_apart():
    world = make_world(is_quarantined=True)
    world.take_over()
    with pytest.raises(StaleFence):
        guard.check(world.acting, world.case, "drain", Expected())


@pytest.mark.parametrize("method", ["config_map", "node"])
def test_what_cannot_be_read_holds_the_act(method):
    world = make_world(is_quarantined=True)
    world.cluster.fail(method)
    with pytest.raises(ClusterError):
        guard.check(world.acting, world.case, "drain", Expected())


def test_a_ledger_that_is_down_holds_the_act():
    world = make_world(is_quarantined=True)
    world.ledger.is_down = True
    with pytest.raises(LedgerError):
        guard.check(world.acting, world.case, "drain", Expected())


@pytest.mark.parametrize(
    ("happens", "is_audited"),
    [(change(is_unschedulable=False), True), (halt_by_ledger, False), (hold, False)],
    ids=["an override is a record", "a halt is asked again and again", "so is a hold"],
)
def test_audits_refusals_that_are_more_than_not_now(happens, is_audited):
    world = make_world(is_quarantined=True)
    happens(world)
    with pytest.raises(Refused):
        guard.check(world.acting, world.case, "drain", Expected())
    assert ("act.refused" in world.events()) is is_audited


@pytest.mark.parametrize(
    ("in_ledger", "in_cluster", "expected"),
    [
        (HaltLevel.NONE, None, HaltLevel.NONE),
        (HaltLevel.DISRUPTION, "none", HaltLevel.DISRUPTION),
        (HaltLevel.NONE, "disruption", HaltLevel.DISRUPTION),
        (HaltLevel.ALL, "disruption", HaltLevel.ALL),
        (HaltLevel.NONE, "ALL!", HaltLevel.ALL),
        (HaltLevel.NONE, "all\n", HaltLevel.ALL),
    ],
)
def test_the_stricter_kill_switch_wins(in_ledger, in_cluster, expected):
    world = make_world()
    world.ledger.set_halt(in_ledger, actor="p", reason="r", now=NOW)
    if in_cluster is not None:
        world.cluster.config_maps["breakfix", "breakfix-halt"] = {"level": in_cluster}
    assert halt_level(world.cluster, world.ledger, "breakfix") is expected


def test_the_kill_switch_of_the_cluster_works_without_a_ledger():
    world = make_world()
    halt_by_cluster(world)
    assert halt_level(world.cluster, None, "breakfix") is HaltLevel.DISRUPTION
