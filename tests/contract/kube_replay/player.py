"""Plays one recording, step by step, against a fresh simulated API."""

from __future__ import annotations

import contextlib
import copy
import http.client
import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import yaml

from simfleet.kube import ADMIN_TOKEN, Rule, SimKube, Tokens, User, admin
from simfleet.kube.defaults import complete, for_create
from simfleet.kube.kinds import BY_NAME
from simfleet.kube.seeds import add_namespace
from tests.contract.kube_replay import commands
from tests.contract.kube_replay.comparing import Binder, Mismatch, compare, is_cut, tidied

RECORDINGS = Path(__file__).parent.parent / "recordings"
REQUEST_TIMEOUT_S = 15.0
QUIET_S = 0.4  # a watch that shall stay silent is listened to for so long
GROUP_REASON = (
    'RBAC: allowed by ClusterRoleBinding "golden-remediator" of ClusterRole '
    '"golden-remediator" to Group "gpu-remediators"'
)
REMEDIATOR_RULES = (
    Rule(("get", "list", "watch", "patch"), ("nodes",), ("",)),
    Rule(("create",), ("pods/eviction",), ("",)),
)
# The one list whose tail the recorder dropped without saying so.
FIRST_ROWS_ONLY = "Table of a list (what kubectl get nodes asks: limit=500)"
USERS = {
    "admin": f"Bearer {ADMIN_TOKEN}",
    "nobody": "Bearer nobody-token",
    "gpu-remediator": "Bearer remediator-token",
    "anonymous": None,
    "a token the server does not know": "Bearer wrong",
    "Basic credentials": "Basic YTpi",
    "admin impersonating nobody": f"Bearer {ADMIN_TOKEN}",
    "nobody impersonating admin": "Bearer nobody-token",
}


def recorded_tokens() -> Tokens:
    """The users of the recordings."""
    remediator = User(
        "gpu-remediator", ("gpu-remediators",), "u2", REMEDIATOR_RULES, reason=GROUP_REASON
    )
    return Tokens(
        {
            ADMIN_TOKEN: admin(),
            "nobody-token": User("nobody"),
            "remediator-token": remediator,
        }
    )


@dataclass
class Response:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def value(self):
        text = self.body.decode()
        if not text:
            return None
        with contextlib.suppress(ValueError):
            return json.loads(text)
        return text


class Player:
    """One file's recording and the API it is played against."""

    def __init__(self, name: str, kube: SimKube) -> None:
        self.name, self.kube, self.store = name, kube, kube.store
        self.steps = json.loads((RECORDINGS / f"{name}.json").read_text())
        numbers = {int(found[4:-1]) for found in _versions(json.dumps(self.steps))}
        self.binder = Binder(oldest=str(min(numbers, default=0)))

    # what a set-up uses

    def call(self, function):
        """Run on the API's own thread."""
        return self.kube.call(function)

    def namespace(self, *names: str) -> None:
        for name in names:
            self.call(lambda name=name: add_namespace(self.store, name))

    def put(self, kind: str, obj: dict) -> dict:
        """Store an object as it is, in place of one of that name."""
        obj = copy.deepcopy(obj)
        for field in ("kind", "apiVersion"):
            obj.pop(field, None)
        for field in ("resourceVersion", "managedFields"):
            obj["metadata"].pop(field, None)
        version = str(self.call(lambda: self.store.version))
        obj = self.binder.fill(obj, version=version, keep=False)
        return self.call(lambda: self._put(kind, obj))

    def _put(self, kind: str, obj: dict) -> dict:
        metadata = obj["metadata"]
        old = self.store.find(kind, metadata.get("namespace", ""), metadata["name"])
        if old is None:
            return self.store.create(kind, complete(kind, obj))
        about = BY_NAME[kind]
        for field in ("uid", "creationTimestamp"):
            metadata.setdefault(field, old["metadata"][field])
        return self.store._write("MODIFIED", about, complete(kind, obj), old)

    def make(self, kind: str, obj: dict) -> dict:
        """Create an object with the server's defaults."""
        obj = self.binder.fill(copy.deepcopy(obj), keep=False)
        return self.call(lambda: self.store.create(kind, for_create(kind, obj, self.store)))

    def recorded(self, step: int, item: int | None = None) -> dict:
        """An object that a step's answer shows."""
        body = self.steps[step]["response"]["body"]
        return body if item is None else body["items"][item]

    def put_recorded(self, kind: str, *steps: int, item: int | None = None, **changes) -> None:
        """Store the object that a step shows: what others wrote, unseen by the recording."""
        for step in steps:
            self.put(kind, self.recorded(step, item) | changes)

    def mutate(self, kind: str, namespace: str, name: str, change) -> None:
        self.call(lambda: self.store.mutate(kind, namespace, name, change))

    def touch(self, kind: str, namespace: str, name: str) -> None:
        """Write an object anew without a change, as a heartbeat does."""
        old = self.call(lambda: self.store.get(kind, namespace, name))
        self.call(lambda: self.store._write("MODIFIED", BY_NAME[kind], old, old))

    def remove(self, kind: str, namespace: str, name: str) -> None:
        self.call(lambda: self.store.delete(kind, namespace, name))

    def fetch(self, path: str) -> dict:
        """A GET of somebody else."""
        return self._send({"method": "GET", "path": path, "headers": {"user": "admin"}}, {}).value()

    def bind_uid(self, placeholder: str, kind: str, namespace: str, name: str) -> None:
        """Say whose uid a placeholder of a request is."""
        obj = self.call(lambda: self.store.get(kind, namespace, name))
        self.binder.values[placeholder] = obj["metadata"]["uid"]

    def bump(self) -> None:
        """Writes elsewhere in the cluster."""
        self.call(self.store.bump)

    # playing

    def play(self, number: int, during=None) -> bool:
        """Play one step; True when its body was compared in full. Raises Mismatch."""
        step = self.steps[number]
        request, recorded = step["request"], step["response"]
        if "[request 1 of" in step["note"]:
            self.before = self.call(self.store.snapshot)
        if request["method"] == "RUN":
            return commands.play(self.before, request["path"], recorded)
        self._raise_version(recorded)
        self._prepare_names(request, recorded)
        query = self._query(request)
        if isinstance(recorded.get("body"), list):
            response, ours = self._watch(step, query, during)
        else:
            response = self._send(request, query)
            ours = response.value()
        if str(recorded.get("body")).startswith("("):
            recorded = recorded | {"body": ours}  # only described by the recorder
        if response.status != recorded["status"]:
            raise Mismatch(
                f"status {response.status}, recorded {recorded['status']}: {ours!s:.500}"
            )
        self._compare_headers(recorded.get("headers", {}), response)
        return self._compare_body(step, recorded.get("body"), ours)

    def _query(self, request: dict) -> dict:
        raw = request.get("query") or {}
        fresh = {one for one in _versions(json.dumps(raw)) if one not in self.binder.values}
        fresh -= {f"<rv:{self.binder.oldest}>"}
        if fresh and self.call(lambda: self.store.version) <= self.binder.newest():
            self.bump()
        return self.binder.fill(raw, version=str(self.call(lambda: self.store.version)))

    def _raise_version(self, recorded: dict) -> None:
        """A version not seen before in an answer is newer than all seen: others have written."""
        text = json.dumps(recorded.get("body"))
        if self.call(lambda: self.store.version) <= self.binder.newest() and "<rv:" in text:
            body = recorded.get("body")
            shown = json.dumps(body.get("metadata", "")) if isinstance(body, dict) else ""
            shown += str(body.get("message", "")) if isinstance(body, dict) else ""
            known = [int(one[4:-1]) for one in self.binder.values if one.startswith("<rv:")]
            if any(int(one[4:-1]) > max(known, default=0) for one in _versions(shown)):
                self.bump()

    def _prepare_names(self, request: dict, recorded: dict) -> None:
        """Random parts of names come out as they were recorded."""
        body = recorded.get("body")
        prefix = (
            ((request.get("body") or {}) if isinstance(request.get("body"), dict) else {})
            .get("metadata", {})
            .get("generateName")
        )
        if prefix and isinstance(body, dict):
            suffix = body["metadata"]["name"].removeprefix(prefix)
            self.store.suffix = lambda length=5: suffix
        else:
            self.store.__dict__.pop("suffix", None)

    def _send(self, request: dict, query: dict) -> Response:
        connection = self._connect()
        try:
            self._request(connection, request, query)
            answer = connection.getresponse()
            return Response(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.kube.url)
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=REQUEST_TIMEOUT_S)

    def _request(self, connection, request: dict, query: dict) -> None:
        target = self.binder.fill(request["path"]) + (f"?{urlencode(query)}" if query else "")
        connection.putrequest(request["method"], target, skip_accept_encoding=True)
        body = self._encoded(request)
        for name, value in self._headers(request).items():
            connection.putheader(name, value)
        if body:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body or None)

    def _encoded(self, request: dict) -> bytes:
        body = request.get("body")
        if body is None:
            return b""
        if isinstance(body, str):
            text = self.binder.fill(body)
            return delete_options_protobuf(1) if text.startswith("(protobuf") else text.encode()
        filled = self.binder.fill(body, version=str(self.call(lambda: self.store.version)))
        return json.dumps(filled).encode()

    def _headers(self, request: dict) -> dict:
        headers = {k: v for k, v in request.get("headers", {}).items() if k != "user"}
        user = request.get("headers", {}).get("user", "admin")
        if user == "token of the ServiceAccount":
            headers["Authorization"] = f"Bearer {self.binder.values['<token>']}"
        elif authorization := USERS[user]:
            headers["Authorization"] = authorization
        if " impersonating " in user:
            headers["Impersonate-User"] = user.rpartition(" ")[2]
        return headers

    # watches

    def _watch(self, step: dict, query: dict, during) -> tuple[Response, list]:
        wanted = len(step["response"]["body"])
        closed_by_server = "the server closed the stream" in step["note"]
        connection = self._connect()
        try:
            self._request(connection, step["request"], query)
            answer = connection.getresponse()
            events: list = []
            reader = threading.Thread(target=_read_events, args=(answer, events), daemon=True)
            reader.start()
            if during is not None:
                time.sleep(0.1)  # the watch is open before things change
                during(self)
            self._await_events(events, wanted, reader, closed_by_server=closed_by_server)
            return Response(answer.status, answer.headers, b""), list(events)
        finally:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(2)
            connection.close()

    def _await_events(self, events, wanted, reader, *, closed_by_server) -> None:
        deadline = time.monotonic() + REQUEST_TIMEOUT_S
        if closed_by_server:
            reader.join(REQUEST_TIMEOUT_S)
            if reader.is_alive():
                raise Mismatch("the server did not close the stream")
            return
        while len(events) < wanted and time.monotonic() < deadline and reader.is_alive():
            time.sleep(0.01)
        time.sleep(QUIET_S if wanted == 0 else 0.05)

    # comparing

    def _compare_headers(self, recorded: dict, response: Response) -> None:
        for name in ("retry-after", "allow", "location"):
            if recorded.get(name) != response.headers.get(name):
                raise Mismatch(
                    f"{name}: recorded {recorded.get(name)}, ours {response.headers.get(name)}"
                )
        warnings = " || ".join(response.headers.get_all("warning", [])) or None
        if recorded.get("warning") != warnings:
            raise Mismatch(f"warning: recorded {recorded.get('warning')}, ours {warnings}")
        kind = recorded.get("content-type")
        if kind and kind != response.headers.get("content-type"):
            raise Mismatch(
                f"content-type: recorded {kind}, ours {response.headers['content-type']}"
            )

    def _compare_body(self, step: dict, recorded, ours) -> bool:
        if isinstance(recorded, str) and recorded.startswith("apiVersion:"):
            recorded, ours = (
                without_ids(yaml.safe_load(recorded)),
                without_ids(yaml.safe_load(ours)),
            )
        recorded, ours = tidied(recorded), tidied(ours)
        if isinstance(recorded, list):
            partial = any(is_cut(step, event["object"], self.name) for event in recorded)
        else:
            partial = is_cut(step, recorded, self.name)
        recorded, ours = reshape(step, recorded, ours)
        compare(recorded, ours, self.binder, partial=partial)
        return not partial


def _read_events(answer, events: list) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError, AttributeError):
        while line := answer.readline():
            events.append(json.loads(line))


def _versions(text: str) -> list[str]:
    from tests.contract.kube_replay.comparing import PLACEHOLDER

    return [found[0] for found in PLACEHOLDER.finditer(text) if found[1] == "rv"]


def shown_events(step, recorded, ours):
    """Event lists without a query show one pod's events only; long ones their beginning."""
    if not step["request"].get("query"):
        names = {one["regarding"]["name"] for one in recorded}
        return [one for one in ours if one["regarding"]["name"] in names]
    return ours[:LIST_CUT_AT] if len(recorded) == LIST_CUT_AT else ours


LIST_CUT_AT = 8
DISCOVERY = ("APIResourceList", "APIGroupList", "APIGroupDiscoveryList")
_NAMES = ("name", "resource", "subresource")


def served_part(recorded, ours):
    """Discovery of a server that serves less: what ours lists must be listed the same."""
    if isinstance(recorded, dict) and isinstance(ours, dict):
        return {key: served_part(value, ours.get(key)) for key, value in recorded.items()}
    if not isinstance(recorded, list) or not isinstance(ours, list):
        return recorded
    mine = {_entry_name(one): one for one in ours}
    kept = [one for one in recorded if _entry_name(one) in mine]
    return [served_part(one, mine[_entry_name(one)]) for one in kept]


def _entry_name(entry) -> str:
    if not isinstance(entry, dict):
        return str(entry)
    named = next((str(entry[key]) for key in _NAMES if key in entry), "")
    return named or str(entry.get("metadata", {}).get("name", ""))


def without_ids(value):
    """YAML answers were recorded with the ids of that day: left out on both sides."""
    if isinstance(value, list):
        return [without_ids(item) for item in value]
    if isinstance(value, dict):
        ids = ("uid", "resourceVersion", "continue")
        return {key: without_ids(item) for key, item in value.items() if key not in ids}
    return value


def reshape(step: dict, recorded, ours):
    """Lists whose items the recorder boiled down to other shapes."""
    if isinstance(recorded, dict) and recorded.get("kind") in DISCOVERY:
        return served_part(recorded, ours), ours
    if step["note"] == FIRST_ROWS_ONLY:
        ours = ours | {"rows": ours["rows"][: len(recorded["rows"])]}
    items = recorded.get("items") if isinstance(recorded, dict) else None
    if not items or not isinstance(ours, dict) or "items" not in ours:
        return recorded, ours
    first = items[0]
    if step["request"]["path"].endswith("/golden-work/events"):
        ours = ours | {"items": shown_events(step, items, ours["items"])}
    for field in ("involvedObject", "regarding"):
        if isinstance(first.get(field), str):
            ours = ours | {
                "items": [
                    {"reason": one["reason"], field: one[field]["name"]} for one in ours["items"]
                ]
            }
    if isinstance(first.get("data"), list):
        ours = ours | {
            "items": [one | {"data": sorted(one.get("data", {}))} for one in ours["items"]]
        }
    return recorded, ours


def delete_options_protobuf(grace_s: int) -> bytes:
    """DeleteOptions as kubectl encodes them: an envelope around gracePeriodSeconds."""
    raw = bytes([0x08, grace_s])
    return b"k8s\x00" + bytes([0x12, len(raw)]) + raw
