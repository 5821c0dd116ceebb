"""BMCs and webhooks as they answer, and what is made of every answer."""

from __future__ import annotations

import json

import httpx
import pytest

from breakfix.adapters.repairs import (
    RedfishRepairs,
    RedfishSettings,
    WebhookRepairs,
    WebhookSettings,
)
from breakfix.adapters.repairs.building import build_providers
from breakfix.adapters.repairs.transport import LeftAlone
from breakfix.adapters.repairs.webhook import signature
from breakfix.errors import Refused, RepairError, SettingsError
from breakfix.model import Action, RefusalReason
from breakfix.ports import RepairRequest, RepairStatus
from breakfix.resilience.breaker import BreakerRule, CircuitState
from breakfix.resilience.circuits import CircuitsInMemory
from breakfix.settings import load_settings
from tests.fakes_cluster import make_node

SYSTEM = "/redfish/v1/Systems/1"
SECRET = "s" * 32
UUID = "00112233-4455-6677-8899-aabbccddeeff"
SWAPPED = "33221100-5544-7766-8899-aabbccddeeff"


def request(action=Action.POWER_CYCLE, **changes):
    annotations = {"breakfix.dev/bmc": "bmc-7"}
    node = make_node("n1", **{"annotations": annotations, "system_uuid": UUID, **changes})
    return RepairRequest("c1/1/repair-x-1", "c1", "repair-x-1", action, node, "boot-1")


# --------------------------------------------------------------------------- Redfish


class Bmc:
    """Answers as a BMC; `changes` to its system, `says` to a reset: a status or an error."""

    def __init__(self, says=204, **changes):
        self.says, self.asked = says, []
        self.system = {
            "@odata.id": SYSTEM,
            "UUID": UUID,
            "PowerState": "On",
            "Actions": {
                "#ComputerSystem.Reset": {
                    "target": f"{SYSTEM}/Actions/ComputerSystem.Reset",
                    "ResetType@Redfish.AllowableValues": ["On", "ForceRestart", "PowerCycle"],
                }
            },
        } | changes

    def __call__(self, asked: httpx.Request) -> httpx.Response:
        self.asked.append((asked.method, asked.url.path, asked.content.decode()))
        if asked.url.path.endswith("/Sessions"):
            place = "/redfish/v1/SessionService/Sessions/9"
            return httpx.Response(201, headers={"X-Auth-Token": "t", "Location": place}, json={})
        if asked.method == "DELETE":
            return httpx.Response(204)
        if asked.headers.get("X-Auth-Token") != "t":
            return httpx.Response(401, json={})
        if asked.url.path == "/redfish/v1/Systems":
            return httpx.Response(200, json={"Members": [{"@odata.id": SYSTEM}]})
        if asked.method == "GET":
            return httpx.Response(200, json=self.system)
        if isinstance(self.says, Exception):
            raise self.says
        return httpx.Response(self.says, json={"error": {"message": "said the BMC"}})

    @property
    def resets(self):
        return [json.loads(body)["ResetType"] for m, p, body in self.asked if p.endswith(".Reset")]


def redfish(bmc, **changes):
    settings = RedfishSettings(hosts=("bmc-7",), user="u", password="p", **changes)
    return RedfishRepairs(settings, circuits=CircuitsInMemory(), transport=httpx.MockTransport(bmc))


def test_a_power_cycle_is_prepared_asked_once_and_read_back():
    bmc = Bmc()
    provider = redfish(bmc)
    handle = dict(provider.prepare(request()))
    assert not bmc.resets
    handle |= provider.dispatch(request(), handle)
    look = provider.look(Action.POWER_CYCLE, handle)
    assert bmc.resets == ["PowerCycle"]
    assert look.status is RepairStatus.DONE
    assert look.text == "the BMC took PowerCycle (HTTP 204); PowerState On"
    logins = sum(p.endswith("/Sessions") for _, p, _ in bmc.asked)
    assert logins == sum(m == "DELETE" for m, _, _ in bmc.asked) == 3


@pytest.mark.parametrize(
    ("action", "allowed", "power", "kind"),
    [
        (Action.POWER_CYCLE, ["PowerCycle", "ForceRestart"], "On", "PowerCycle"),
        (Action.POWER_CYCLE, ["ForceRestart"], "On", "ForceRestart"),
        (Action.POWER_CYCLE, ["On", "PowerCycle"], "Off", "On"),
        (Action.REBOOT_NODE, ["GracefulRestart", "ForceRestart"], "On", "GracefulRestart"),
        (Action.POWER_CYCLE, ["Nmi"], "On", None),
    ],
)
def test_the_kind_of_reset_is_the_best_that_is_allowed(action, allowed, power, kind):
    bmc = Bmc(PowerState=power)
    bmc.system["Actions"]["#ComputerSystem.Reset"]["ResetType@Redfish.AllowableValues"] = allowed
    if kind is None:
        with pytest.raises(Refused, match="allows none"):
            redfish(bmc).prepare(request(action))
    else:
        assert redfish(bmc).prepare(request(action))["reset_type"] == kind


@pytest.mark.parametrize(
    ("says", "is_unclear"),
    [
        pytest.param(400, False, id="it does not take it"),
        pytest.param(403, False, id="it may not"),
        pytest.param(500, True, id="it fails"),
        pytest.param(503, True, id="it is busy"),
        pytest.param(httpx.ReadTimeout("slow"), True, id="it does not answer"),
        pytest.param(httpx.RemoteProtocolError("cut"), True, id="it hangs up"),
        pytest.param(httpx.ConnectError("refused"), False, id="it is not there"),
    ],
)
def test_only_what_certainly_was_not_done_is_clear(says, is_unclear, no_pause):
    bmc = Bmc()
    provider = redfish(bmc)
    handle = provider.prepare(request())
    bmc.says = says
    with pytest.raises(RepairError) as caught:
        provider.dispatch(request(), handle)
    assert caught.value.is_unclear is is_unclear
    assert len(bmc.resets) == (4 if isinstance(says, httpx.ConnectError) else 1)


@pytest.mark.parametrize(
    ("system", "node", "is_its"),
    [
        pytest.param({}, {}, True, id="the same UUID"),
        pytest.param({"UUID": SWAPPED}, {}, True, id="the same with its first fields swapped"),
        pytest.param({"UUID": UUID.upper()}, {}, True, id="the same in capitals"),
        pytest.param({"UUID": "ff" * 16}, {}, False, id="another machine's UUID"),
        pytest.param(
            {"UUID": "ff" * 16, "HostName": "n1"}, {}, False, id="another UUID, the same host"
        ),
        pytest.param({"UUID": "", "HostName": "n1.example"}, {}, True, id="the node's host name"),
        pytest.param({"HostName": "n1"}, {"system_uuid": ""}, True, id="only a host name to tell"),
        pytest.param({"UUID": "", "HostName": "n2"}, {}, False, id="another host name"),
        pytest.param({"UUID": "", "HostName": ""}, {}, False, id="nothing to tell it by"),
    ],
)
def test_a_bmc_of_another_machine_is_never_asked(system, node, is_its):
    bmc = Bmc(**system)
    if is_its:
        assert redfish(bmc).prepare(request(**node))["system"] == SYSTEM
        return
    with pytest.raises(Refused) as caught:
        redfish(bmc).prepare(request(**node))
    assert caught.value.reason is RefusalReason.UNSUPPORTED


def test_what_settings_name_is_believed_unless_it_is_plainly_another_machine():
    settings = {"addresses": {"n1": "https://bmc-7"}}
    nameless = Bmc(UUID="", HostName="")
    assert redfish(nameless, **settings).prepare(request())["bmc"] == "https://bmc-7"
    with pytest.raises(Refused, match="of machine"):
        redfish(Bmc(UUID="ff" * 16), **settings).prepare(request())


@pytest.mark.parametrize(
    "annotation",
    ["", "https://evil.test", "http://bmc-7", "bmc-7/redfish/v1/Managers/1"],
    ids=["none", "another host", "no TLS", "no system"],
)
def test_an_annotation_leads_nowhere_else(annotation):
    bmc = Bmc()
    wish = request()
    wish = RepairRequest(
        wish.key, "c1", wish.step, wish.action, make_node("n1", annotations={}), "boot-1"
    )
    if annotation:
        wish.node.annotations["breakfix.dev/bmc"] = annotation
    with pytest.raises(Refused) as caught:
        redfish(bmc).prepare(wish)
    assert caught.value.reason is RefusalReason.UNSUPPORTED
    assert not bmc.asked


def test_a_reset_target_elsewhere_is_refused():
    bmc = Bmc()
    bmc.system["Actions"]["#ComputerSystem.Reset"]["target"] = "https://evil.test/reset"
    with pytest.raises(Refused, match="another place"):
        redfish(bmc).prepare(request())


def test_redirects_are_not_followed():
    def elsewhere(asked):
        return httpx.Response(302, headers={"Location": "https://evil.test/"})

    with pytest.raises(RepairError, match="302"):
        redfish(elsewhere, auth="basic").prepare(request())


def test_a_flood_of_an_answer_is_cut():
    def flood(asked):
        return httpx.Response(200, content=b"x" * (2 << 20))

    with pytest.raises(RepairError):
        redfish(flood, auth="basic").prepare(request())


def test_a_bmc_that_is_dead_is_left_alone_and_the_others_are_not(no_pause):
    asked, circuits = [], CircuitsInMemory()

    def dead(wanted):
        asked.append(wanted.url.host)
        raise httpx.ConnectTimeout("no answer")

    def provider(host):
        settings = RedfishSettings(hosts=("bmc-7", "bmc-8"), user="u", password="p")
        transport = httpx.MockTransport(dead)
        return RedfishRepairs(settings, circuits=circuits, transport=transport).prepare(
            request(annotations={"breakfix.dev/bmc": host})
        )

    for _ in range(BreakerRule().failures):
        with pytest.raises(RepairError):
            provider("bmc-7")
    before = len(asked)
    with pytest.raises(RepairError, match="left alone"):
        provider("bmc-7")
    assert len(asked) == before
    with pytest.raises(RepairError, match="cannot be reached"):
        provider("bmc-8")
    assert asked[-1] == "bmc-8"


# --------------------------------------------------------------------------- webhook


class Hook:
    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def __call__(self, asked: httpx.Request) -> httpx.Response:
        self.asked.append(asked)
        said = self.answers.pop(0) if self.answers else httpx.Response(404)
        if isinstance(said, Exception):
            raise said
        return said


def webhook(hook, circuits=None):
    settings = WebhookSettings("https://hooks.example/replace?x=1", SECRET)
    return WebhookRepairs(
        settings,
        now=lambda: 1234.5,
        circuits=circuits or CircuitsInMemory(),
        transport=httpx.MockTransport(hook),
    )


def said(status="running", code=200, **more):
    return httpx.Response(code, json={"status": status, **more})


def test_a_request_is_signed_and_carries_its_key():
    hook = Hook(said(code=202))
    webhook(hook).dispatch(request(Action.REPLACE_NODE), {})
    (asked,) = hook.asked
    key = "c1/1/repair-x-1"
    assert asked.headers["Idempotency-Key"] == key
    assert asked.headers["X-Breakfix-Timestamp"] == "1234"
    assert asked.headers["X-Breakfix-Signature"] == signature(
        SECRET, "1234", "POST", key, asked.content
    )
    body = json.loads(asked.content)
    assert (body["action"], body["node"]["name"]) == ("replace_node", "n1")
    assert SECRET not in asked.content.decode()


def test_another_body_key_time_or_method_has_another_signature():
    base = ("1", "POST", "k", b"body")
    others = [
        ("2", *base[1:]),
        ("1", "GET", *base[2:]),
        (*base[:2], "j", b"body"),
        (*base[:3], b""),
    ]
    signs = {signature(SECRET, *parts) for parts in [base, *others]}
    assert len(signs) == len(others) + 1


@pytest.mark.parametrize(
    ("answer", "is_unclear"),
    [
        pytest.param(httpx.Response(401), False, id="it does not know us"),
        pytest.param(httpx.Response(422), False, id="it does not take it"),
        pytest.param(httpx.Response(409), True, id="something else is under way"),
        pytest.param(httpx.Response(502), True, id="a gateway fails"),
        pytest.param(httpx.ReadTimeout("slow"), True, id="it does not answer"),
    ],
)
def test_what_a_webhook_did_not_take_is_told_from_what_is_unclear(answer, is_unclear):
    hook = Hook(answer)
    with pytest.raises(RepairError) as caught:
        webhook(hook).dispatch(request(), {})
    assert caught.value.is_unclear is is_unclear
    assert len(hook.asked) == 1


@pytest.mark.parametrize(
    "failing",
    [lambda: httpx.Response(503), lambda: httpx.ReadTimeout("slow")],
    ids=["it says that it is down", "it says nothing"],
)
def test_a_webhook_that_keeps_failing_is_left_alone_by_all_who_share_its_circuit(failing):
    hook, circuits = Hook(*[failing() for _ in range(9)]), CircuitsInMemory()
    for _ in range(BreakerRule().failures):
        with pytest.raises(RepairError):
            webhook(hook, circuits).dispatch(request(), {})
    sent = len(hook.asked)
    with pytest.raises(RepairError) as held:
        webhook(hook, circuits).dispatch(request(), {})
    assert (held.value.is_unclear, held.value.is_transient) == (False, True)
    assert len(hook.asked) == sent == BreakerRule().failures
    assert circuits.load("webhook hooks.example").state is CircuitState.OPEN


def test_a_replay_that_a_circuit_holds_is_not_taken_for_one_that_may_have_been_sent():
    from dataclasses import replace

    hook, circuits = Hook(*[httpx.Response(503) for _ in range(9)]), CircuitsInMemory()
    for _ in range(BreakerRule().failures):
        with pytest.raises(RepairError):
            webhook(hook, circuits).dispatch(request(), {})
    with pytest.raises(LeftAlone) as held:
        webhook(hook, circuits).dispatch(replace(request(), is_replay=True), {})
    assert not held.value.is_unclear
    assert len(hook.asked) == BreakerRule().failures


@pytest.mark.parametrize("status", [422, 429, 500])
def test_a_webhook_that_answers_is_there(status):
    hook, circuits = Hook(*[httpx.Response(status) for _ in range(9)]), CircuitsInMemory()
    for _ in range(9):
        with pytest.raises(RepairError):
            webhook(hook, circuits).dispatch(request(), {})
    assert len(hook.asked) == 9


@pytest.mark.parametrize(
    ("known", "posts"), [(said("done"), 0), (httpx.Response(404), 1)], ids=["known", "unknown"]
)
def test_a_replay_asks_whether_the_key_is_known_before_it_sends(known, posts):
    from dataclasses import replace

    hook = Hook(known, said(code=202))
    webhook(hook).dispatch(replace(request(), is_replay=True), {})
    assert [a.method for a in hook.asked] == ["GET", *["POST"] * posts]


def test_a_replay_that_cannot_ask_sends_nothing(no_pause):
    from dataclasses import replace

    hook = Hook(*[httpx.ConnectError("refused")] * 9)
    with pytest.raises(RepairError) as caught:
        webhook(hook).dispatch(replace(request(), is_replay=True), {})
    assert caught.value.is_unclear
    assert {a.method for a in hook.asked} == {"GET"}


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (said("running"), RepairStatus.RUNNING),
        (said("done", ticket="RMA-1"), RepairStatus.DONE),
        (said("failed", text="no spare"), RepairStatus.FAILED),
        (httpx.Response(404), RepairStatus.UNKNOWN),
        (httpx.Response(410), RepairStatus.UNKNOWN),
    ],
)
def test_a_look_says_what_the_webhook_says(answer, status):
    hook = Hook(answer)
    look = webhook(hook).look(Action.REPLACE_NODE, {"key": "c/1/s"})
    assert look.status is status
    assert str(hook.asked[0].url) == "https://hooks.example/replace?x=1&key=c%2F1%2Fs"


@pytest.mark.parametrize(
    "answer",
    [said("perhaps"), httpx.Response(200, text="<html>"), httpx.Response(500), said(code=401)],
    ids=["another word", "no JSON", "an error", "not allowed"],
)
def test_an_answer_that_is_not_understood_is_asked_for_again(answer):
    with pytest.raises(RepairError):
        webhook(Hook(answer)).look(Action.REPLACE_NODE, {"key": "c/1/s"})


# --------------------------------------------------------------------------- settings


def providers(**settings):
    return build_providers(load_settings(**settings), now=lambda: 0.0, circuits=CircuitsInMemory())


REDFISH = {"redfish_hosts": "bmc-7", "redfish_user": "u", "redfish_password": "p"}


def test_settings_say_who_does_which_rung():
    chosen = {
        "power_cycle": "redfish",
        "replace_node": "https://hooks.example/replace",
        "open_vendor_case": "http://127.0.0.1:8000/vendor",
    }
    found = providers(repair_providers=json.dumps(chosen), webhook_secret=SECRET, **REDFISH)
    assert {a: p.name for a, p in found.items()} == {
        Action.POWER_CYCLE: "redfish",
        Action.REPLACE_NODE: "webhook",
        Action.OPEN_VENDOR_CASE: "webhook",
    }
    assert not providers()


@pytest.mark.parametrize(
    ("chosen", "more", "says"),
    [
        ({"power_cycle": "redfish"}, {}, "BREAKFIX_REDFISH_HOSTS"),
        ({"replace_node": "redfish"}, REDFISH, "name a webhook"),
        ({"fly": "redfish"}, REDFISH, "is no repair"),
        ({"replace_node": "agent"}, {"webhook_secret": SECRET}, "neither `redfish` nor"),
        ({"replace_node": "http://h/x"}, {"webhook_secret": SECRET}, "neither `redfish` nor"),
        ({"replace_node": "https://u:p@h/"}, {"webhook_secret": SECRET}, "without"),
        ({"replace_node": "https://h/x"}, {"webhook_secret": "short"}, "BREAKFIX_WEBHOOK_SECRET"),
    ],
)
def test_wrong_settings_are_named_in_one_line(chosen, more, says):
    with pytest.raises(SettingsError, match=says):
        providers(repair_providers=json.dumps(chosen), **more)


@pytest.mark.parametrize("text", ["redfish", "[1]", '{"power_cycle": 1}'])
def test_a_map_that_is_none_is_refused_with_the_settings(text):
    with pytest.raises(SettingsError, match="BREAKFIX_REPAIR_PROVIDERS"):
        load_settings(repair_providers=text)


def test_secrets_are_not_shown():
    settings = load_settings(webhook_secret="hush-hush-hush", redfish_password="pw-pw-pw")
    made = RedfishSettings(hosts=(), user="u", password="pw-pw-pw")
    assert "hush-hush" not in repr(settings)
    assert "pw-pw" not in repr(settings) + repr(made)


@pytest.fixture
def no_pause(monkeypatch):
    """Retries without their pauses."""
    from breakfix.adapters.repairs import transport

    kept = transport.retried
    monkeypatch.setattr(
        transport, "retried", lambda call, **how: kept(call, **how, sleep=lambda s: None)
    )
