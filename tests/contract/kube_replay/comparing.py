"""Recorded bodies against ours: placeholders bound on first sight, the rest compared.

A recorded body is compared in full unless the recorder cut it: then what is there is compared.
"""

from __future__ import annotations

import copy
import itertools
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

PLACEHOLDER = re.compile(
    r"<(uid|rv|continue|time|microtime|token|server|dns|host-ip|pod-ip):?(\d*)>"
)
SHAPES = {
    "uid": r"[0-9a-f-]{36}",
    "rv": r"\d+",
    "continue": r"[A-Za-z0-9_-]+",
    "time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ",
    "microtime": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6,}Z",
    "token": r"\S+",
    "server": r"\S+",
    "dns": r"\S+",
    "host-ip": r"[0-9.]*",
    "pod-ip": r"[0-9.]*",
}
NOW, NOW_MICRO = "2026-02-03T04:05:06Z", "2026-02-03T04:05:06.{:06d}Z"
# What no simulation can or should repeat, taken out of both sides. Each with its reason.
TOKEN_VOLUME = re.compile(r"kube-api-access-[a-z0-9]{5}")  # five random letters
AGE = re.compile(r"(\d+[smhdy])+|<unknown>|<invalid>")  # depends on when it was recorded
QUOTED_OBJECT = re.compile(
    r'Invalid value: "\{.*\}": ', re.DOTALL
)  # holds managedFields, key order
SPEC_DIFF = re.compile(r"\n@@ .*|\n[-+] \".*", re.DOTALL)  # Go's dump of internal structs
BUILD = ("gitCommit", "buildDate", "goVersion", "platform")  # which build was recorded
EVENT_NAME = re.compile(r"\.[0-9a-f]{16}$")  # the time in hexadecimal
HASH_LABEL = "controller-revision-hash"
FORK_CONFIG_MAP = "openshift-service-ca.crt"  # only the recorded server's fork has it


class Mismatch(AssertionError):
    """Ours differs from the recording; the text says where."""


@dataclass
class Binder:
    """What the placeholders of one file stand for."""

    values: dict[str, str] = field(default_factory=dict)
    oldest: str = ""  # the lowest version of the file, used where an old one is wanted

    micros: Iterator[int] = field(default_factory=itertools.count)

    def bind(self, placeholder: str, value: str) -> None:
        kind, number = PLACEHOLDER.fullmatch(placeholder).groups()
        if kind in ("uid", "continue") and value in self.values.values():
            raise Mismatch(f"{placeholder} is {value}, which is another placeholder's")
        if kind == "rv":
            self._check_order(int(number), int(value))
        self.values[placeholder] = value

    def _check_order(self, number: int, value: int) -> None:
        for other, bound in self.values.items():
            if other.startswith("<rv:"):
                before = int(other[4:-1])
                if (before < number) != (int(bound) < value):
                    raise Mismatch(f"<rv:{number}> is {value}, but {other} is {bound}")

    def newest(self) -> int:
        return max((int(v) for k, v in self.values.items() if k.startswith("<rv:")), default=0)

    def fill(self, value, *, version: str = "1", keep: bool = True):
        """A request or object with everything substituted.

        New uids are made up; a version not seen yet is `version`, remembered if `keep`.
        """
        if isinstance(value, dict):
            return {
                self.fill(key): self.fill(item, version=version, keep=keep)
                for key, item in value.items()
            }
        if isinstance(value, list):
            return [self.fill(item, version=version, keep=keep) for item in value]
        if not isinstance(value, str):
            return value
        return PLACEHOLDER.sub(lambda found: self._stand_in(found, version, keep=keep), value)

    def _stand_in(self, found: re.Match, version: str, *, keep: bool) -> str:
        text, kind = found[0], found[1]
        if text in self.values:
            return self.values[text]
        if kind == "time":
            return NOW
        if kind == "microtime":
            return NOW_MICRO.format(next(self.micros))
        if kind == "uid":
            self.values[text] = str(uuid.uuid4())
            return self.values[text]
        if kind == "rv":
            if found[2] == self.oldest:
                version = "1"
            if keep:
                self.bind(text, version)
            return version
        return "10.128.0.9" if kind.endswith("ip") else "unbound"

    def match_text(self, recorded: str, ours: str, path: str) -> None:
        pattern, names = "", []
        at = 0
        for found in PLACEHOLDER.finditer(recorded):
            pattern += re.escape(recorded[at : found.start()])
            bound = self.values.get(found[0]) if found[2] or found[1] == "token" else None
            pattern += re.escape(bound) if bound is not None else f"({SHAPES[found[1]]})"
            if bound is None:
                names.append(found[0])
            at = found.end()
        pattern += re.escape(recorded[at:])
        matched = re.fullmatch(pattern, ours, re.DOTALL)
        if matched is None:
            raise Mismatch(f"{path}: recorded {recorded!r:.400}, ours {ours!r:.400}")
        for name, value in zip(names, matched.groups(), strict=True):
            if PLACEHOLDER.fullmatch(name)[2] or name == "<token>":
                if name in self.values and self.values[name] != value:
                    raise Mismatch(f"{path}: {name} is {value} and {self.values[name]}")
                if name not in self.values:
                    self.values[name] = value if name == "<token>" else self._bound(name, value)

    def _bound(self, name: str, value: str) -> str:
        self.bind(name, value)
        return value


def tidied(body):
    """A body without what is left out of every comparison."""
    body = copy.deepcopy(body)
    _tidy(body)
    return body


def _tidy(value) -> None:
    if isinstance(value, list):
        value[:] = [item for item in value if not _is_fork_source(item)]
        for item in value:
            _tidy(item)
    elif isinstance(value, dict):
        _tidy_object(value)


def _tidy_object(value: dict) -> None:
    value.pop("managedFields", None)  # server-side apply is out of scope
    for key in BUILD if "gitVersion" in value else ():
        value.pop(key, None)
    if value.get("kind") == "Table":
        _tidy_table(value)
    for key, item in value.items():
        if isinstance(item, str):
            value[key] = _tidy_text(key, item)
        elif key in ("involvedObject", "regarding") and isinstance(item, dict):
            item.pop("resourceVersion", None)  # which write the scheduler had seen: a race
        elif key == "labels" and isinstance(item, dict) and HASH_LABEL in item:
            item[HASH_LABEL] = "(hash)"  # of Go's dump of the template
        else:
            _tidy(item)
    value.update(reporter_without_host(value))


def reporter_without_host(value: dict) -> dict:
    is_reported = value.get("reportingInstance") or value.get("reportingController")
    return {"reportingInstance": "(host)"} if is_reported else {}


def _tidy_text(key: str, text: str) -> str:
    text = TOKEN_VOLUME.sub("kube-api-access-xxxxx", text)
    if key == "name":
        return EVENT_NAME.sub(".(when)", text)
    if key == "message":
        text = QUOTED_OBJECT.sub("Invalid value: {the patched object}: ", text)
        return SPEC_DIFF.sub("", text)
    return text


def _is_fork_source(item) -> bool:
    if not isinstance(item, dict):
        return False
    name = (item.get("configMap") or item.get("metadata") or {}).get("name")
    return name == FORK_CONFIG_MAP


def _tidy_table(table) -> None:
    names = [column["name"] for column in table.get("columnDefinitions") or []]
    for column in table.get("columnDefinitions") or []:
        column.pop("description", None)  # prose, not contract
    for row in table["rows"]:
        for at, cell in enumerate(row["cells"]):
            is_age = names[at] in ("Age", "Last Seen") if names else AGE.fullmatch(str(cell))
            if is_age and isinstance(cell, str):
                row["cells"][at] = "(age)" if AGE.fullmatch(cell) else cell
            if names and names[at] == "IP":
                row["cells"][at] = re.sub(r"[\d.]+", "(address)", cell)


# Kinds that are answered and never stored: they have no uid.
NO_OBJECTS = (
    "SelfSubjectReview",
    "SelfSubjectAccessReview",
    "TokenReview",
    "APIGroupDiscoveryList",
)


def is_cut(step: dict, body, name: str) -> bool:
    """Whether the recorder kept only a part of a body."""
    note = step["note"]
    if name.startswith("08") or any(word in note for word in ("cut", "trimmed", "kept")):
        return True
    if not isinstance(body, dict):
        return False
    if body.get("kind") in ("Status", "Table") or "gitVersion" in body or "paths" in body:
        return body.get("kind") == "Table" and not _has_objects(body)
    if "items" in body:
        return any("uid" not in item.get("metadata", {}) for item in body["items"])
    if body.get("status") == {} and body.get("kind") == "Node":
        return True
    if body.get("kind") == "Pod" and set(body.get("spec", {})) == {"nodeName"}:
        return True
    is_object = {"metadata", "spec"} & set(body) and body.get("kind") not in NO_OBJECTS
    return "apiVersion" not in body or bool(is_object and "uid" not in body["metadata"])


def _has_objects(table: dict) -> bool:
    return all("kind" in (row.get("object") or {"kind": 0}) for row in table["rows"])


def compare(recorded, ours, binder: Binder, *, partial: bool, path: str = "") -> None:
    """Raise Mismatch where ours is not what was recorded."""
    if isinstance(recorded, str) and recorded.startswith("(cut"):
        return
    if isinstance(recorded, dict) and isinstance(ours, dict):
        _compare_members(recorded, ours, binder, partial=partial, path=path)
    elif isinstance(recorded, list) and isinstance(ours, list):
        _compare_items(recorded, ours, binder, partial=partial, path=path)
    elif isinstance(recorded, str) and isinstance(ours, str):
        binder.match_text(recorded, ours, path)
    elif recorded is None and partial:
        return
    elif type(recorded) is not type(ours) or recorded != ours:
        raise Mismatch(f"{path}: recorded {recorded!r:.300}, ours {ours!r:.300}")


def _compare_items(recorded: list, ours: list, binder, *, partial, path) -> None:
    if len(recorded) != len(ours):
        names = [[_name_of(one) for one in side] for side in (recorded, ours)]
        raise Mismatch(f"{path}: {len(recorded)} recorded, {len(ours)} ours: {names!s:.600}")
    for at, (one, other) in enumerate(zip(recorded, ours, strict=True)):
        compare(one, other, binder, partial=partial, path=f"{path}[{at}]")


def _name_of(item) -> str:
    return (item.get("metadata") or {}).get("name", "?") if isinstance(item, dict) else str(item)


def _compare_members(recorded: dict, ours: dict, binder, *, partial, path) -> None:
    reduced = {"phase", "qosClass", "conditions"}
    status_is_cut = path.endswith("status") and set(recorded) <= reduced
    if not partial and not status_is_cut:
        # The recorder took spec or status out of some objects that are otherwise whole.
        is_object = path == "" or path.endswith((".object", "]"))
        extra = set(ours) - set(recorded) - ({"spec", "status"} if is_object else set())
        if extra:
            raise Mismatch(f"{path}: ours also has {sorted(extra)}")
    for name, value in recorded.items():
        key = binder.fill(name)
        if key in ours:
            compare(value, ours[key], binder, partial=partial, path=f"{path}.{key}")
        elif not (partial and (value is None or str(value).startswith("(cut"))):
            raise Mismatch(f"{path}: ours lacks {key} (recorded {value!r:.200})")
