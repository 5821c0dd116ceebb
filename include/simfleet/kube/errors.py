"""What the API answers when it refuses: one exception, one constructor for each recorded kind.

ApiError
    carries HTTP status, headers and the `Status` object of Kubernetes; `not_found`, `conflict`,
    `invalid`, ... build it with the texts a real API server uses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from simfleet.kube.kinds import Kind


class ApiError(Exception):
    """A refusal: `code` and headers of the response, and its `Status` body or plain text."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        plain_text: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.headers = dict(headers or {})
        self.plain_text = plain_text
        self.continue_token = ""
        self.warnings: tuple[str, ...] = ()

    def status(self) -> dict[str, Any]:
        """The `Status` object of the response body."""
        body: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": {}}
        if self.continue_token:
            body["metadata"] = {"continue": self.continue_token}
        body |= {"status": "Failure", "message": self.message}
        if self.reason:
            body["reason"] = self.reason
        if self.details is not None:
            body["details"] = dict(self.details)
        return body | {"code": self.code}


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason why an object is invalid: `Invalid value: 5: must be ...` at a field."""

    field: str
    message: str
    reason: str = "FieldValueInvalid"

    def as_dict(self) -> dict[str, str]:
        """The cause as it stands in `details.causes`."""
        return {"reason": self.reason, "message": self.message, "field": self.field}


@dataclass(slots=True)
class Causes:
    """A growing list of causes, with the wordings of the API server's field errors."""

    found: list[Cause] = field(default_factory=list)

    def invalid(self, path: str, value: str, text: str) -> None:
        """`value` is written as it shall appear (strings quoted by the caller)."""
        self.found.append(Cause(path, f"Invalid value: {value}: {text}"))

    def required(self, path: str, text: str = "") -> None:
        """A missing value."""
        message = f"Required value: {text}" if text else "Required value"
        self.found.append(Cause(path, message, "FieldValueRequired"))

    def forbidden(self, path: str, text: str) -> None:
        """A value that may not be set or changed."""
        self.found.append(Cause(path, f"Forbidden: {text}", "FieldValueForbidden"))

    def unsupported(self, path: str, value: str, supported: Sequence[str]) -> None:
        """A value outside an enumeration."""
        known = ", ".join(f'"{one}"' for one in supported)
        message = f"Unsupported value: {value}: supported values: {known}"
        self.found.append(Cause(path, message, "FieldValueNotSupported"))

    def duplicate(self, path: str, value: str) -> None:
        """A list entry that repeats a key."""
        self.found.append(Cause(path, f"Duplicate value: {value}", "FieldValueDuplicate"))


def _details(kind: Kind, name: str, *, as_kind: bool = False) -> dict[str, Any]:
    details: dict[str, Any] = {"name": name} if name else {}
    if kind.group:
        details["group"] = kind.group
    return details | {"kind": kind.kind if as_kind else kind.plural}


def not_found(kind: Kind, name: str) -> ApiError:
    """404: the object does not exist."""
    message = f'{kind.qualified_plural} "{name}" not found'
    return ApiError(404, "NotFound", message, details=_details(kind, name))


def no_such_resource() -> ApiError:
    """404: the path names no resource of a known group."""
    message = "the server could not find the requested resource"
    return ApiError(404, "NotFound", message, details={})


def no_such_path() -> ApiError:
    """404 in plain text: the path is unknown altogether."""
    return ApiError(404, "NotFound", "not found", plain_text="404 page not found\n")


def method_not_allowed() -> ApiError:
    """405."""
    message = "the server does not allow this method on the requested resource"
    return ApiError(405, "MethodNotAllowed", message, details={})


def already_exists(kind: Kind, name: str) -> ApiError:
    """409 on create."""
    message = f'{kind.qualified_plural} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, details=_details(kind, name))


OTHER_NAMESPACE = (
    "the namespace of the provided object does not match the namespace sent on the request"
)
MODIFIED = (
    "the object has been modified; please apply your changes to the latest version and try again"
)


def conflict(kind: Kind, name: str, why: str = MODIFIED) -> ApiError:
    """409 on update: the resourceVersion is not the current one."""
    message = f'Operation cannot be fulfilled on {kind.qualified_plural} "{name}": {why}'
    return ApiError(409, "Conflict", message, details=_details(kind, name))


def precondition_failed(kind: Kind, name: str, why: str) -> ApiError:
    """409 of a delete's preconditions, which names the kind instead of the resource."""
    message = f'Operation cannot be fulfilled on {kind.qualified_kind} "{name}": {why}'
    return ApiError(409, "Conflict", message, details=_details(kind, name, as_kind=True))


def bad_request(message: str) -> ApiError:
    """400."""
    return ApiError(400, "BadRequest", message)


def internal_error(message: str) -> ApiError:
    """500 without a reason, as the API server answers to what it did not expect."""
    return ApiError(500, "", message)


def joined(causes: Sequence[Cause]) -> str:
    """`field: message`, several in brackets."""
    texts = list(dict.fromkeys(f"{cause.field}: {cause.message}" for cause in causes))
    return texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"


def invalid(kind: Kind, name: str, causes: Sequence[Cause]) -> ApiError:
    """422: the object breaks rules of its kind."""
    message = f'{kind.qualified_kind} "{name}" is invalid: {joined(causes)}'
    details = _details(kind, name, as_kind=True) | {"causes": [one.as_dict() for one in causes]}
    return ApiError(422, "Invalid", message, details=details)


def invalid_options(
    options: str, causes: Sequence[Cause], *, group: str = "meta.k8s.io"
) -> ApiError:
    """422: query parameters or delete options that cannot be (`ListOptions.meta.k8s.io`)."""
    message = f'{options}.{group} "" is invalid: {joined(causes)}'
    details: dict[str, Any] = {"group": group}
    if options:
        details["kind"] = options
    details["causes"] = [one.as_dict() for one in causes]
    return ApiError(422, "Invalid", message, details=details)


def invalid_patch(value: str, why: str) -> ApiError:
    """422: the patched object cannot be read as its type; the message quotes it."""
    message = f"Invalid value: {value}: {why}"
    cause = Cause("patch", message).as_dict()
    text = f' "" is invalid: patch: {message}'
    return ApiError(422, "Invalid", text, details={"causes": [cause]})


def rejected_patch() -> ApiError:
    """422 with empty details: an operation of a JSON patch failed."""
    message = "the server rejected our request due to an error in our request"
    return ApiError(422, "Invalid", message, details={})


def expired(message: str) -> ApiError:
    """410: the resourceVersion or continue token is too old."""
    return ApiError(410, "Expired", message)


def version_too_large(wanted: int, current: int) -> ApiError:
    """504: the resourceVersion lies in the future."""
    details = {
        "causes": [
            {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"},
        ],
        "retryAfterSeconds": 1,
    }
    message = f"Timeout: Too large resource version: {wanted}, current: {current}"
    return ApiError(504, "Timeout", message, details=details, headers={"Retry-After": "1"})


def unauthorized() -> ApiError:
    """401: a token nobody knows."""
    return ApiError(401, "Unauthorized", "Unauthorized")


def not_acceptable(message: str, *, details: bool = False) -> ApiError:
    """406."""
    return ApiError(406, "NotAcceptable", message, details={} if details else None)


def unsupported_media(message: str, *, details: bool = False) -> ApiError:
    """415."""
    return ApiError(415, "UnsupportedMediaType", message, details={} if details else None)
