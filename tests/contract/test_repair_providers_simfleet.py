"""BMCs and the webhook receiver of the simulated fleet, over real HTTP and verified TLS."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from breakfix.adapters.repairs import (
    RedfishRepairs,
    RedfishSettings,
    WebhookRepairs,
    WebhookSettings,
)
from breakfix.errors import RepairError
from breakfix.model import Action
from breakfix.ports import RepairRequest, RepairStatus
from breakfix.resilience.circuits import CircuitsInMemory
from simfleet import bmc, hooks
from simfleet.fleet import FleetConfig
from simfleet.inprocess import SimFleet
from simfleet.trouble import Mode
from tests.fakes_cluster import make_node

FLEET = {"speed": 9000, "racks": [{"name": "r1", "pool": "p", "sku": "h100", "nodes": 2}]}
NODE = "r1-n01"


@pytest.fixture(scope="module")
def fleet():
    with SimFleet(FleetConfig.model_validate(FLEET), tls=True) as fleet:
        yield fleet


@pytest.fixture
def ca(fleet, tmp_path):
    path = tmp_path / "ca.pem"
    path.write_text(fleet.sim.certificate)
    return str(path)


def request(action=Action.POWER_CYCLE, key="c1/1/repair-1"):
    node = make_node(NODE, system_uuid=NODE)
    return RepairRequest(key, "c1", "repair-1", action, node, "boot-1")


def redfish(fleet, **changes):
    url = changes.pop("url", fleet.tls_url)
    settings = RedfishSettings(
        hosts=(url.partition("://")[2],),
        user=bmc.USER,
        password=bmc.PASSWORD,
        addresses={NODE: f"{url}/redfish/v1/Systems/{NODE}"},
        timeout_s=5.0,
    )
    return RedfishRepairs(replace(settings, **changes), circuits=CircuitsInMemory())


def reboots(fleet):
    return fleet.status(NODE)["reboots"]


def wait_for(what, within_s=10.0):
    deadline = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def mode(fleet, wanted):
    fleet.call(lambda: fleet.sim.bmcs.modes.update({NODE: wanted}))


@pytest.mark.parametrize("auth", ["session", "basic"])
def test_a_bmc_that_a_known_ca_vouches_for_resets_its_machine(fleet, ca, auth):
    mode(fleet, Mode.OBEY)
    before, provider = reboots(fleet), redfish(fleet, ca_file=ca, auth=auth)
    handle = dict(provider.prepare(request()))
    handle |= provider.dispatch(request(), handle)
    wait_for(lambda: reboots(fleet) == before + 1)
    assert provider.look(Action.POWER_CYCLE, handle).status is RepairStatus.DONE


def test_a_bmc_that_nobody_vouches_for_gets_no_password(fleet):
    with pytest.raises(RepairError, match="certificate"):
        redfish(fleet).prepare(request())


@pytest.mark.parametrize("auth", ["session", "basic"])
def test_a_wrong_password_resets_nothing(fleet, ca, auth):
    before = len(fleet.sim.bmcs.resets)
    with pytest.raises(RepairError, match="401"):
        redfish(fleet, ca_file=ca, auth=auth, password="wrong").prepare(request())
    assert len(fleet.sim.bmcs.resets) == before


@pytest.mark.parametrize(
    ("how", "is_unclear", "acts"),
    [(Mode.REFUSE, False, 0), (Mode.FAIL, True, 0), (Mode.ACT_AND_FAIL, True, 1)],
)
def test_a_failing_bmc_is_asked_once(fleet, ca, how, is_unclear, acts):
    provider, before = redfish(fleet, ca_file=ca), reboots(fleet)
    asked = len(fleet.sim.bmcs.resets)
    handle = provider.prepare(request())
    mode(fleet, how)
    with pytest.raises(RepairError) as caught:
        provider.dispatch(request(), handle)
    assert caught.value.is_unclear is is_unclear
    assert len(fleet.sim.bmcs.resets) == asked + 1
    wait_for(lambda: reboots(fleet) == before + acts)


def webhook(fleet, secret=hooks.SECRET):
    url = f"{fleet.url}/sim/hooks/open_vendor_case"
    return WebhookRepairs(
        WebhookSettings(url, secret, 5.0), now=time.time, circuits=CircuitsInMemory()
    )


def test_the_same_key_is_done_once(fleet):
    provider = webhook(fleet)
    wish = request(Action.OPEN_VENDOR_CASE, key="c1/1/vendor")
    handle = provider.dispatch(wish, {})
    provider.dispatch(wish, {})
    provider.dispatch(replace(wish, is_replay=True), {})
    (asked,) = [a for k, a in fleet.sim.hooks.asked.items() if k == wish.key]
    assert asked.times == 2  # the replay only looked
    look = provider.look(Action.OPEN_VENDOR_CASE, handle)
    assert (look.status, look.detail["ticket"]) == (RepairStatus.DONE, asked.ticket)


def test_a_wrong_secret_asks_for_nothing(fleet):
    wish = request(Action.OPEN_VENDOR_CASE, key="c1/1/unsigned")
    with pytest.raises(RepairError, match="401") as caught:
        webhook(fleet, secret="x" * 32).dispatch(wish, {})
    assert not caught.value.is_unclear
    assert wish.key not in fleet.sim.hooks.asked


def test_a_key_that_was_forgotten_is_unknown(fleet):
    provider = webhook(fleet)
    wish = request(Action.OPEN_VENDOR_CASE, key="c1/1/forgotten")
    handle = provider.dispatch(wish, {})
    fleet.call(lambda: fleet.sim.hooks.asked.pop(wish.key))
    assert provider.look(Action.OPEN_VENDOR_CASE, handle).status is RepairStatus.UNKNOWN
