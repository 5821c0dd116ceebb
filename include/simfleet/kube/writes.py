"""POST, PUT and PATCH of objects."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

from simfleet.kube import bodies, defaults, errors, events, patches, schema, validation
from simfleet.kube.admission import check_account, check_namespace
from simfleet.kube.errors import Cause, Causes
from simfleet.kube.forms import Answer
from simfleet.kube.kinds import BY_NAME, NEW_EVENT, Kind
from simfleet.kube.reads import full
from simfleet.kube.requests import Incoming, is_dry_run
from simfleet.kube.store import Obj, Store

STRATEGIC = "application/strategic-merge-patch+json"
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"


class Write:
    """One writing request: its target, its options and its body."""

    def __init__(self, store: Store, kind: Kind, incoming: Incoming) -> None:
        request = incoming.request
        options = {"create": "CreateOptions", "update": "UpdateOptions"}.get(
            request.verb, "PatchOptions"
        )
        self.store, self.kind, self.request = store, kind, request
        self.query = incoming.query
        self.content_type, self.body = incoming.content_type, incoming.body
        self.namespace = request.namespace if kind.namespaced else ""
        self.dry_run = is_dry_run(incoming.dry_run, options)
        self.validation = bodies.field_validation(self.query, options)
        self.stored_kind = BY_NAME[kind.kind]
        self.warnings: list[str] = []

    def create(self) -> Answer:
        """POST. Raises ApiError 400, 403, 404, 409, 415, 422."""
        obj, warnings = self._object()
        check_namespace(self.store, self.kind, self.namespace, obj["metadata"])
        stored = self._create(obj)
        return Answer(full(self.kind, stored), 201, warnings=tuple(warnings))

    def _create(self, obj: Obj) -> Obj:
        metadata = obj["metadata"]
        for field in ("uid", "creationTimestamp", "resourceVersion", "generation", "selfLink"):
            metadata.pop(field, None)
        validation.check_create(self.kind, obj)
        if self.kind.kind == "Pod":
            check_account(self.store, self.namespace, obj)
        obj = defaults.for_create(self.kind.kind, obj, self.store)
        if not self.dry_run:
            return self.store.create(self.kind.kind, obj)
        if self.store.find(self.kind.kind, self.namespace, metadata.get("name", "")):
            raise errors.already_exists(self.kind, metadata["name"])
        return self.store.prepared(self.stored_kind, obj)

    def _object(self) -> tuple[Obj, list[str]]:
        parsed = bodies.read(self.kind, self.content_type, self.body)
        bodies.check_type(self.kind, parsed.value)
        if self.kind is NEW_EVENT:
            _check_new_event(parsed.value)
            parsed = bodies.Parsed(events.as_core(parsed.value), parsed.duplicates)
        obj, warnings = bodies.typed(self.kind, parsed, self.validation)
        obj = {key: value for key, value in obj.items() if key not in ("kind", "apiVersion")}
        metadata = obj["metadata"] = dict(obj.get("metadata") or {})
        for field in ("managedFields",):
            metadata.pop(field, None)
        self._check_place(metadata)
        return obj, warnings

    def _check_place(self, metadata: Obj) -> None:
        """The object's namespace and name must be those of the path; absent ones become so."""
        space, name = self.namespace, self.request.name
        if self.kind.namespaced and metadata.setdefault("namespace", space) != space:
            raise errors.bad_request(errors.OTHER_NAMESPACE)
        if name and metadata.setdefault("name", name) != name:
            raise _other_name(metadata["name"], name)

    def update(self) -> Answer:
        """PUT. Raises ApiError 400, 404, 409, 415, 422."""
        new, warnings = self._object()
        old = self.store.find(self.kind.kind, self.namespace, self.request.name)
        if old is None:
            return self._create_by_update(new, warnings)
        self._check_version(new["metadata"].get("resourceVersion", ""), old)
        uid = new["metadata"].get("uid", old["metadata"]["uid"])
        if uid != old["metadata"]["uid"]:
            raise errors.conflict(self.kind, self.request.name, _uid_text(self.kind, uid, old))
        return Answer(full(self.kind, self._replace(old, new)), warnings=tuple(warnings))

    def _create_by_update(self, new: Obj, warnings: list[str]) -> Answer:
        if not self.kind.creates_on_update:
            raise errors.not_found(self.kind, self.request.name)
        stored = self._create(new)
        return Answer(full(self.kind, stored), 201, warnings=tuple(warnings))

    def _check_version(self, sent: str, old: Obj) -> None:
        if sent in ("", "0"):
            if self.kind.needs_version_on_update and self.request.verb == "update":
                raise _version_required(self.kind, self.request.name)
        elif not sent.isdigit():
            text = f'strconv.ParseUint: parsing "{sent}": invalid syntax'
            raise errors.internal_error(text)
        elif sent != old["metadata"]["resourceVersion"]:
            raise errors.conflict(self.kind, self.request.name)

    def _replace(self, old: Obj, new: Obj) -> Obj:
        new = self._own_part(old, new)
        for field in ("deletionTimestamp", "deletionGracePeriodSeconds"):
            new["metadata"].pop(field, None)
            if field in old["metadata"]:
                new["metadata"][field] = old["metadata"][field]
        try:
            validation.check_update(self.kind, old, new)
        except errors.ApiError as error:
            error.warnings = tuple(self.warnings)
            raise
        if self.dry_run:
            return self.store.successor(self.stored_kind, old, new)
        return self.store.replace(self.stored_kind, old, new)

    def _own_part(self, old: Obj, new: Obj) -> Obj:
        """A write of the object leaves status alone, and one of /status all but status."""
        new = defaults.complete(self.kind.kind, new)
        new["metadata"] = dict(new["metadata"])
        if self.request.subresource == "status":
            kept = {key: value for key, value in old.items() if key not in ("metadata", "status")}
            return kept | {"metadata": new["metadata"], "status": new.get("status", {})}
        if self.kind.has_status and "status" in old:
            return new | {"status": old["status"]}
        return new

    def patch(self) -> Answer:
        """PATCH. Raises ApiError 400, 404, 409, 415, 422, 500."""
        media = bodies.media_type(self.content_type)
        if media not in (STRATEGIC, MERGE, JSON_PATCH):
            raise errors.unsupported_media("415: Unsupported Media Type", details=True)
        if "force" in self.query:
            causes = Causes()
            causes.forbidden("force", "may not be specified for non-apply patch")
            raise errors.invalid_options("PatchOptions", causes.found)
        old = self.store.find(self.kind.kind, self.namespace, self.request.name)
        if old is None:
            raise errors.not_found(self.kind, self.request.name)
        new, warnings = self._patched(media, old)
        self.warnings = warnings
        metadata = new.setdefault("metadata", {})
        if metadata.get("name") != self.request.name:
            raise _other_name(str(metadata.get("name", "")), self.request.name)
        self._check_version(metadata.get("resourceVersion", ""), old)
        return Answer(full(self.kind, self._replace(old, new)), warnings=tuple(warnings))

    def _patched(self, media: str, old: Obj) -> tuple[Obj, list[str]]:
        parsed = _read_patch(media, self.body)
        before = full(self.kind, old)
        if media == JSON_PATCH:
            try:
                made = patches.json_patch(before, parsed.value)
            except patches.PatchFailed as error:
                raise errors.rejected_patch() from error
        elif media == MERGE:
            made = patches.merge_patch(before, parsed.value)
        else:
            made = patches.strategic_patch(self.kind.kind, copy.deepcopy(before), parsed.value)
        shown = (
            json.dumps(json.dumps(made, separators=(",", ":")))
            if media != STRATEGIC
            else (f'"{go_print(parsed.value)}"')
        )
        return self._typed_patch(made, parsed, media, shown)

    def _typed_patch(
        self, made: Obj, parsed: bodies.Parsed, media: str, shown: str
    ) -> tuple[Obj, list[str]]:
        if not isinstance(made, dict):
            raise errors.rejected_patch()
        if self.kind is NEW_EVENT:
            made = events.as_core(made)
        obj, reading = schema.canonical(self.kind.kind, made)
        if reading.wrong:
            text = _converter_text(parsed.value) if media == STRATEGIC else reading.wrong[0]
            raise errors.invalid_patch(shown, text or reading.wrong[0])
        found = bodies.complaints(reading.unknown, parsed.duplicates)
        if found and self.validation == "Strict":
            raise errors.invalid_patch(shown, f"strict decoding error: {', '.join(found)}")
        obj = {key: value for key, value in obj.items() if key not in ("kind", "apiVersion")}
        return obj, found if self.validation == "Warn" else []


def _read_patch(media: str, body: bytes) -> bodies.Parsed:
    try:
        parsed = bodies.parse_json(body)
    except ValueError as error:
        raise errors.bad_request(f"error decoding patch: {error}") from error
    wants_list = media == JSON_PATCH
    if wants_list and not isinstance(parsed.value, list):
        text = "json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"
        raise errors.bad_request(f"error decoding patch: {text}")
    if not wants_list and not isinstance(parsed.value, dict):
        text = "json: cannot unmarshal array into Go value of type map[string]interface {}"
        raise errors.bad_request(f"error decoding patch: {text}")
    return parsed


def go_print(value: Any) -> str:
    """A JSON value as Go prints it: `map[spec:map[bogus:1]]`."""
    if isinstance(value, dict):
        return "map[" + " ".join(f"{k}:{go_print(v)}" for k, v in sorted(value.items())) + "]"
    if isinstance(value, list):
        return "[" + " ".join(go_print(item) for item in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return "<nil>" if value is None else str(value)


def _converter_text(patch: Any) -> str:
    """Strategic patches name the Go types alone; a label that is a number is the usual case."""
    labels = patch.get("metadata", {}).get("labels") or {}
    if any(isinstance(value, int) for value in labels.values()):
        return "cannot convert int64 to string"
    return ""


def _other_name(sent: str, path: str) -> errors.ApiError:
    text = f"the name of the object ({sent}) does not match the name on the URL ({path})"
    return errors.bad_request(text)


def _uid_text(kind: Kind, uid: str, old: Obj) -> str:
    key = f"/registry/{kind.registry or kind.plural}/"
    if kind.namespaced:
        key += old["metadata"]["namespace"] + "/"
    return (
        f"StorageError: invalid object, Code: 4, Key: {key}{old['metadata']['name']}, "
        "ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: "
        f"{uid}, UID in object meta: {old['metadata']['uid']}"
    )


def _version_required(kind: Kind, name: str) -> errors.ApiError:
    cause = Cause("metadata.resourceVersion", "Invalid value: 0: must be specified for an update")
    message = f'{kind.qualified_plural} "{name}" is invalid: {errors.joined([cause])}'
    details = {"name": name, "group": kind.group, "kind": kind.plural}
    details_full: dict[str, Any] = details | {"causes": [cause.as_dict()]}
    return errors.ApiError(422, "Invalid", message, details=details_full)


def _check_new_event(obj: Mapping[str, Any]) -> None:
    if not obj.get("eventTime"):
        causes = Causes()
        causes.required("eventTime")
        name = (obj.get("metadata") or {}).get("name", "")
        raise errors.invalid(BY_NAME["Event"], name, causes.found)
