"""Power over a node's BMC by Redfish: ComputerSystem.Reset, once, and the power state read back.

A BMC compares nothing: the same request twice is two resets. So it is asked once; its answer says
that it took the request, and only the node's boot id says that it was done.
"""

from __future__ import annotations

import json
import ssl
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx

from breakfix.adapters.repairs.addresses import WrongAddress, checked_origin
from breakfix.adapters.repairs.transport import Reply, breaker_of, send
from breakfix.errors import Refused, RepairError
from breakfix.model import Action, Node, RefusalReason
from breakfix.ports import RepairLook, RepairRequest, RepairStatus
from breakfix.resilience.breaker import CircuitStore

ROOT = "/redfish/v1"
_SYSTEMS = f"{ROOT}/Systems"
_SESSIONS = f"{ROOT}/SessionService/Sessions"
#: What to ask for, best first, of what the system allows (Redfish ComputerSystem.Reset).
_RESETS = {
    Action.POWER_CYCLE: ("PowerCycle", "ForceRestart"),
    Action.REBOOT_NODE: ("GracefulRestart", "ForceRestart"),
}
_DEADLINE_S = 40.0


@dataclass(frozen=True, slots=True)
class RedfishSettings:
    """Which BMCs, as whom. `addresses`: node -> address, beside the node's `annotation`."""

    hosts: tuple[str, ...]
    user: str
    password: str = field(repr=False)
    addresses: Mapping[str, str] = field(default_factory=dict)
    annotation: str = "breakfix.dev/bmc"
    auth: Literal["session", "basic"] = "session"
    ca_file: str = ""
    timeout_s: float = 10.0


class RedfishRepairs:
    """`ports.RepairProvider` over the nodes' BMCs; each has a breaker of its own."""

    name = "redfish"
    can_compare = False

    def __init__(
        self,
        settings: RedfishSettings,
        *,
        circuits: CircuitStore,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._settings, self._circuits, self._transport = settings, circuits, transport

    def prepare(self, request: RepairRequest) -> Mapping[str, Any]:
        """The system behind the node's BMC, and that it is this node's. Raises Refused
        (UNSUPPORTED), RepairError.
        """
        if request.action not in _RESETS:
            raise _unsupported(f"Redfish does no {request.action}")
        origin, path, is_by_settings = self._address(request.node)
        with self._session(origin) as client:
            path = path or self._only_system(client)
            system = _good(self._get(client, path), f"{origin}{path}")
        _check_is_of(system, request.node, is_by_settings=is_by_settings)
        target, kinds = _reset_of(system, path)
        power = str(system.get("PowerState", ""))
        return {
            "bmc": origin,
            "system": path,
            "target": target,
            "reset_type": _kind(request.action, kinds, power),
            "power_state_before": power,
            "last_reset_before": str(system.get("LastResetTime", "")),
        }

    def dispatch(self, request: RepairRequest, handle: Mapping[str, Any]) -> Mapping[str, Any]:
        """Ask once. An answer of success says that it was taken, no more."""
        del request
        origin, target = str(handle["bmc"]), str(handle["target"])
        kind = str(handle["reset_type"])
        with self._session(origin) as client:
            reply = self._send(client, "POST", target, {"ResetType": kind}, is_idempotent=False)
        if not reply.is_good:
            what = f"{origin}: {kind}: HTTP {reply.status} {_message(reply)}"
            raise RepairError(what, is_unclear=reply.is_unclear)
        return {"text": f"the BMC took {kind} (HTTP {reply.status})"}

    def look(self, action: Action, handle: Mapping[str, Any]) -> RepairLook:
        """The power state as the BMC has it. DONE: it is on; whether it was off, the boot shows."""
        del action
        origin, path = str(handle["bmc"]), str(handle["system"])
        with self._session(origin) as client:
            system = _good(self._get(client, path), f"{origin}{path}")
        power, last = str(system.get("PowerState", "")), str(system.get("LastResetTime", ""))
        detail = {"power_state": power, "last_reset": last}
        text = f"{handle.get('text', 'the BMC was asked')}; PowerState {power or 'unknown'}"
        status = RepairStatus.DONE if power == "On" else RepairStatus.RUNNING
        return RepairLook(status, text, detail)

    # -- whom

    def _address(self, node: Node) -> tuple[str, str, bool]:
        """(origin, path of the system or "", whether settings name it)."""
        settings = self._settings
        by_settings = settings.addresses.get(node.name, "")
        address = by_settings or node.annotations.get(settings.annotation, "")
        if not address:
            raise _unsupported(
                f"{node.name} has no BMC address: neither annotation {settings.annotation} nor"
                " BREAKFIX_REDFISH_ADDRESSES names one"
            )
        try:
            origin, path = checked_origin(address, settings.hosts)
        except WrongAddress as e:
            raise _unsupported(f"the BMC address of {node.name} is refused: {e}") from None
        if path in ("", ROOT, _SYSTEMS):
            return origin, "", bool(by_settings)
        if not path.startswith(f"{_SYSTEMS}/"):
            raise _unsupported(f"the BMC address of {node.name} is no {_SYSTEMS}/<id>: {path!r}")
        return origin, path, bool(by_settings)

    def _only_system(self, client: httpx.Client) -> str:
        found = _good(self._get(client, _SYSTEMS), _SYSTEMS)
        members = [
            str(m.get("@odata.id", "")) for m in found.get("Members", ()) if isinstance(m, dict)
        ]
        if len(members) != 1 or not members[0].startswith(f"{_SYSTEMS}/"):
            raise _unsupported(f"the BMC has {len(members)} systems: name one in its address")
        return members[0]

    # -- how

    @contextmanager
    def _session(self, origin: str) -> Iterator[httpx.Client]:
        """A client of that BMC alone, logged in; a session is ended again."""
        settings = self._settings
        is_basic = settings.auth == "basic"
        with httpx.Client(
            base_url=origin,
            timeout=settings.timeout_s,
            follow_redirects=False,
            trust_env=False,
            verify=_context(settings.ca_file),
            transport=self._transport,
            auth=httpx.BasicAuth(settings.user, settings.password) if is_basic else None,
        ) as client:
            if is_basic:
                yield client
                return
            session = self._log_in(client)
            try:
                yield client
            finally:
                self._log_out(client, session)

    def _log_in(self, client: httpx.Client) -> str:
        settings = self._settings
        who = {"UserName": settings.user, "Password": settings.password}
        reply = self._send(client, "POST", _SESSIONS, who, is_idempotent=True)
        token = next((v for k, v in reply.headers.items() if k.lower() == "x-auth-token"), "")
        if not reply.is_good or not token:
            raise RepairError(f"{client.base_url.host}: no session: HTTP {reply.status}")
        client.headers["X-Auth-Token"] = token
        place = next((v for k, v in reply.headers.items() if k.lower() == "location"), "")
        path = httpx.URL(place).path if place else str(reply.json.get("@odata.id", ""))
        return path if path.startswith(f"{_SESSIONS}/") else ""

    def _log_out(self, client: httpx.Client, session: str) -> None:
        """Best effort: a session that stays ends by itself."""
        if not session:
            return
        try:
            client.delete(session)
        except httpx.HTTPError:
            return

    def _get(self, client: httpx.Client, path: str) -> Reply:
        return self._send(client, "GET", path, None, is_idempotent=True)

    def _send(
        self,
        client: httpx.Client,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        *,
        is_idempotent: bool,
    ) -> Reply:
        url = f"{str(client.base_url).rstrip('/')}{path}"
        return send(
            client,
            method,
            url,
            breaker=breaker_of(f"bmc {client.base_url.host}", self._circuits),
            headers={"Content-Type": "application/json", "OData-Version": "4.0"},
            body=json.dumps(body).encode() if body is not None else None,
            is_idempotent=is_idempotent,
            deadline_s=_DEADLINE_S,
        )


def _context(ca_file: str) -> ssl.SSLContext:
    """Always verified: against the site's CA where one is named, else the system's."""
    return ssl.create_default_context(cafile=ca_file or None)


def _unsupported(text: str) -> Refused:
    return Refused(RefusalReason.UNSUPPORTED, text)


def _good(reply: Reply, where: str) -> Mapping[str, Any]:
    if not reply.is_good or not reply.json:
        raise RepairError(f"{where}: HTTP {reply.status} {_message(reply)}")
    return reply.json


def _message(reply: Reply) -> str:
    """What the BMC says went wrong (Redfish's extended error), or the beginning of its answer."""
    error = reply.json.get("error")
    said = error.get("message") if isinstance(error, dict) else None
    return str(said or reply.text)[:200]


def _reset_of(system: Mapping[str, Any], path: str) -> tuple[str, tuple[str, ...]]:
    """(where to post a reset, the kinds that the system allows; none: it does not say)."""
    actions = system.get("Actions")
    reset = actions.get("#ComputerSystem.Reset") if isinstance(actions, dict) else None
    reset = reset if isinstance(reset, dict) else {}
    target = str(reset.get("target") or f"{path}/Actions/ComputerSystem.Reset")
    if not target.startswith(f"{ROOT}/") or ".." in target:
        raise _unsupported(f"the BMC names another place for its reset: {target[:80]!r}")
    kinds = reset.get("ResetType@Redfish.AllowableValues", ())
    return target, tuple(str(k) for k in kinds) if isinstance(kinds, list) else ()


def _kind(action: Action, allowed: tuple[str, ...], power: str) -> str:
    """A machine that is off is switched on; the others get the best that is allowed."""
    wanted = ("On", "ForceOn") if power == "Off" else _RESETS[action]
    found = next((k for k in wanted if not allowed or k in allowed), None)
    if found is None:
        raise _unsupported(f"the BMC allows none of {', '.join(wanted)} (power {power or '?'})")
    return found


# --------------------------------------------------------------------------- is it this node's?


def _check_is_of(system: Mapping[str, Any], node: Node, *, is_by_settings: bool) -> None:
    """The machine behind the BMC is the node: by its UUID, else by its host name. An annotation can
    be wrong, and then another node would lose its power; what settings name is believed without.
    """
    theirs, ours = str(system.get("UUID", "")), node.system_uuid
    if theirs and ours:
        if not _same_uuid(theirs, ours):
            raise _unsupported(f"the BMC is of machine {theirs}, and {node.name} is {ours}")
        return
    host = str(system.get("HostName") or "")
    if host and host.partition(".")[0] != node.name.partition(".")[0]:
        raise _unsupported(f"the BMC is of host {host!r}, not of {node.name}")
    if not host and not is_by_settings:
        raise _unsupported(
            f"the BMC names neither UUID nor host, so that it cannot be told to be {node.name}'s:"
            " name it in BREAKFIX_REDFISH_ADDRESSES"
        )


def _same_uuid(one: str, other: str) -> bool:
    """SMBIOS stores the first three fields little-endian, and not everybody swaps them."""
    try:
        a, b = uuid.UUID(one), uuid.UUID(other)
    except ValueError:
        return one.lower() == other.lower()
    return a == b or a.bytes == b.bytes_le
