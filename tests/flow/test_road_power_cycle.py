"""The road to a power cycle and beyond: the simulated machines, their API, BMCs and a webhook, all
over HTTP; only the metrics and the ledger are in memory.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest

from breakfix.adapters.clock import SystemClock
from breakfix.adapters.repairs.building import build_providers
from breakfix.flow.by_hand import open_by_hand
from breakfix.flow.reconcile import reconcile
from breakfix.flow.services import Services
from breakfix.model import CaseEnd, FailureClass, NodeState, StepStatus
from breakfix.ports import NodePatch
from breakfix.resilience.circuits import CircuitsInMemory
from breakfix.settings import load_settings
from breakfix.wiring import build_cluster
from simfleet import bmc, hooks
from simfleet.fleet import FleetConfig
from simfleet.inprocess import SimFleet
from simfleet.trouble import Mode
from tests.fakes_ledger import FakeLedger
from tests.flow.driver import Road
from tests.flow.world import Notifier, Telemetry, policy_with

OVERLAY = """
limits: {out: {fleet: {share: 1.0}}, cooldown: 0s}
timing: {reboot: 4s, power_cycle: 10s, replace: 40s, gpus_back: 60s, clear: 1s, watch: 1h}
approvals: {tiers: []}
classes:
  gpu_off_bus: {ladder: [reboot_node, power_cycle], diag_level: 1}
  gsp: {ladder: [replace_node], diag_level: 1}
  disk: {mode: approve, ladder: [open_vendor_case]}
"""
NODES = ("r1-n01", "r2-n01", "r3-n01", "r4-n01", "r5-n01")
OBEYS, LIES, CUTS, REPLACED, VENDORS = NODES
FLEET = FleetConfig.model_validate(
    {
        "speed": 450,  # a reboot takes two seconds
        "racks": [
            {"name": f"r{n}", "pool": f"p{n}", "sku": "h100", "nodes": 1} for n in range(1, 6)
        ],
    }
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class SimNodes:
    """The names of the simulated nodes, as the telemetry of these tests wants them."""

    _nodes = dict.fromkeys(NODES)


@pytest.fixture
def fleet():
    with SimFleet(FLEET) as fleet:
        yield fleet


@pytest.fixture
def services(fleet, tmp_path):
    host = fleet.url.removeprefix("http://")
    chosen = {
        "power_cycle": "redfish",
        "replace_node": f"{fleet.url}/sim/hooks/replace_node",
        "open_vendor_case": f"{fleet.url}/sim/hooks/open_vendor_case",
    }
    settings = load_settings(
        kubeconfig=str(fleet.kubeconfig(tmp_path / "kubeconfig")),
        cluster_name="sim",
        repair_providers=json.dumps(chosen),
        webhook_secret=hooks.SECRET,
        redfish_hosts=host,
        redfish_user=bmc.USER,
        redfish_password=bmc.PASSWORD,
        redfish_timeout_s=1.0,
    )
    cluster, policy, clock = build_cluster(settings), policy_with(OVERLAY), SystemClock()
    ledger = FakeLedger("sim")
    services = Services(
        Telemetry(policy, SimNodes()), cluster, policy, settings, clock, Notifier(), ledger
    )
    for name in NODES:
        node = cluster.node(name)
        address = {"breakfix.dev/bmc": f"{fleet.url}/redfish/v1/Systems/{name}"}
        cluster.patch_node(name, node.resource_version, NodePatch(annotations=address))
    yield replace(
        services, providers=build_providers(settings, now=time.time, circuits=CircuitsInMemory())
    )
    cluster.close()


def case_of(services, node):
    return services.book.cases(node=node)[-1]


def steps_of(services, node):
    return {s.name: s for s in services.book.steps(case_of(services, node).id)}


def drive(services, road, until, *, within_s):
    deadline = time.monotonic() + within_s
    while not until():
        if time.monotonic() > deadline:
            raise AssertionError({k: (r.stage, r.trail) for k, r in road.runs.items()})
        road.tick()
        reconcile(services, road)
        time.sleep(0.1)


def test_a_hung_node_is_power_cycled_and_no_bmc_is_believed(fleet, services):
    fleet.call(lambda: fleet.sim.bmcs.modes.update({LIES: Mode.LIE, CUTS: Mode.ACT_AND_HANG}))
    for name in (OBEYS, LIES, CUTS):
        fleet.break_node(name, "reboot_hangs")
    road = Road(services)
    wishes = {
        OBEYS: FailureClass.GPU_OFF_BUS,
        LIES: FailureClass.GPU_OFF_BUS,
        CUTS: FailureClass.GPU_OFF_BUS,
        REPLACED: FailureClass.GSP,
        VENDORS: FailureClass.DISK,
    }
    for name, wish in wishes.items():
        road.start(open_by_hand(services, name, wish, requester="cli:ann", reason="it hangs"))

    def are_settled():
        cases = [case_of(services, n) for n in NODES]
        return all(not c.is_open or c.state is NodeState.RETURNING for c in cases)

    drive(services, road, are_settled, within_s=90)

    for name in (OBEYS, CUTS):
        assert case_of(services, name).state is NodeState.RETURNING, name
        cycle = steps_of(services, name)["repair-power_cycle-1.r2"]
        assert cycle.status is StepStatus.DONE
        assert cycle.detail["boot_id_after"] == services.cluster.node(name).boot_id
        assert steps_of(services, name)["repair-reboot_node-1"].status is StepStatus.UNKNOWN
        assert not services.cluster.node(name).is_unschedulable
    assert "unclear" in steps_of(services, CUTS)["repair-power_cycle-1.r2"].detail

    lied = case_of(services, LIES)
    assert lied.end is CaseEnd.ESCALATED
    assert steps_of(services, LIES)["repair-power_cycle-1.r2"].status is StepStatus.UNKNOWN
    assert "the BMC took PowerCycle" in lied.detail["state_reason"]
    assert services.cluster.node(LIES).is_unschedulable

    asked = sorted(fleet.call(lambda: list(fleet.sim.bmcs.resets)))
    assert asked == sorted((n, "PowerCycle") for n in (OBEYS, LIES, CUTS))  # each once

    assert case_of(services, REPLACED).state is NodeState.RETURNING
    assert steps_of(services, REPLACED)["repair-replace_node-1"].status is StepStatus.DONE
    vendors = case_of(services, VENDORS)
    assert vendors.end is CaseEnd.ESCALATED
    assert "RMA-" in vendors.detail["state_reason"]
    taken = fleet.call(
        lambda: [(a.action, a.node, a.times) for a in fleet.sim.hooks.asked.values()]
    )
    assert sorted(taken) == [("open_vendor_case", VENDORS, 1), ("replace_node", REPLACED, 1)]
    assert services.book.verify_audit()[1] == ""
