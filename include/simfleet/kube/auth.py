"""Who is asking and what they may: bearer tokens, roles, and the words of a 403."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from simfleet.kube.errors import ApiError
from simfleet.kube.requests import RequestInfo

ANONYMOUS_PATHS = ("/healthz", "/livez", "/readyz", "/version", "/version/")
DISCOVERY_PATHS = ("/api", "/apis", "/openapi", *ANONYMOUS_PATHS)
SELF_REVIEWS = ("selfsubjectaccessreviews", "selfsubjectrulesreviews", "selfsubjectreviews")


@dataclass(frozen=True, slots=True)
class Rule:
    """What a role allows: verbs on resources (`pods/eviction` for subresources), `*` for all.

    `namespaces` limits it to some namespaces; empty means everywhere.
    """

    verbs: tuple[str, ...]
    resources: tuple[str, ...]
    groups: tuple[str, ...] = ("*",)
    namespaces: tuple[str, ...] = ()

    def allows(self, verb: str, group: str, resource: str, namespace: str) -> bool:
        """Whether this rule alone allows a request."""
        return (
            _among(verb, self.verbs)
            and _among(resource, self.resources)
            and _among(group, self.groups)
            and (not self.namespaces or namespace in self.namespaces)
        )


def _among(value: str, known: Iterable[str]) -> bool:
    return "*" in known or value in known


EVERYTHING = Rule(("*",), ("*",))
READ_ONLY = Rule(("get", "list", "watch"), ("*",))


@dataclass(frozen=True, slots=True)
class User:
    """An identity. `superuser` may do everything, paths outside the resources included.

    `reason` is what an access review gives as the reason of its yes.
    """

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    rules: tuple[Rule, ...] = ()
    superuser: bool = False
    reason: str = ""
    extra: Mapping[str, list[str]] = field(default_factory=dict)

    def may(self, verb: str, group: str, resource: str, namespace: str) -> bool:
        """Whether a request on a resource is allowed."""
        if self.superuser:
            return True
        return any(rule.allows(verb, group, resource, namespace) for rule in self.rules)

    def info(self) -> dict[str, Any]:
        """`userInfo` of a review."""
        made: dict[str, Any] = {"username": self.name}
        if self.uid:
            made["uid"] = self.uid
        made["groups"] = [*self.groups, "system:authenticated"]
        return made | ({"extra": dict(self.extra)} if self.extra else {})


ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))


def admin(name: str = "admin") -> User:
    """A user who may do everything."""
    return User(name, ("system:masters",), superuser=True)


class Tokens:
    """Bearer tokens and whose they are. Tokens of service accounts join while running."""

    def __init__(self, users: Mapping[str, User] | None = None) -> None:
        self.users = dict(users or {})
        self.account_rules: dict[str, tuple[Rule, ...]] = {}

    def user_of(self, authorization: str | None) -> User | None:
        """The user of an Authorization header; ANONYMOUS without a token, None if unknown."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return ANONYMOUS
        return self.users.get(token.strip())

    def issue(self, namespace: str, account: str, uid: str, credential: str) -> str:
        """Make a token for a service account."""
        name = f"system:serviceaccount:{namespace}:{account}"
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
        extra = {"authentication.kubernetes.io/credential-id": [f"JTI={credential}"]}
        rules = self.account_rules.get(name, ())
        token = secrets.token_urlsafe(24)
        self.users[token] = User(name, groups, uid, rules, extra=extra)
        return token

    def named(self, name: str) -> User:
        """The user of that name, for impersonation; one without rights if nobody has it."""
        return next((one for one in self.users.values() if one.name == name), User(name))


def authorize(user: User, request: RequestInfo) -> None:
    """Raise ApiError 403 unless the user may do what the request asks."""
    if user.superuser:
        return
    if not request.is_resource:
        if user is ANONYMOUS and request.path in ANONYMOUS_PATHS:
            return
        if user is not ANONYMOUS and _is_discovery(request.path):
            return
        message = f'forbidden: User "{user.name}" cannot {request.verb} path "{request.path}"'
        raise ApiError(403, "Forbidden", message, details={})
    if user is not ANONYMOUS and request.resource in SELF_REVIEWS:
        return
    if not user.may(request.verb, request.group, request.full_resource, request.namespace):
        raise forbidden(user, request, request.verb)


def _is_discovery(path: str) -> bool:
    if path in DISCOVERY_PATHS:
        return True
    return path.startswith(("/api/", "/apis/", "/openapi/"))


def forbidden(user: User, request: RequestInfo, verb: str) -> ApiError:
    """403 for a request on a resource."""
    resource = request.resource + (f".{request.group}" if request.group else "")
    target = f'{resource} "{request.name}"' if request.name else resource
    where = (
        f'in the namespace "{request.namespace}"' if request.namespace else "at the cluster scope"
    )
    message = (
        f'{target} is forbidden: User "{user.name}" cannot {verb} resource '
        f'"{request.full_resource}" in API group "{request.group}" {where}'
    )
    details = {"name": request.name} if request.name else {}
    details |= {"group": request.group} if request.group else {}
    details |= {"kind": request.resource}
    return ApiError(403, "Forbidden", message, details=details)


def impersonate(tokens: Tokens, user: User, name: str | None, request: RequestInfo) -> User:
    """The user to act as; only a superuser may act as another. Raises ApiError 403."""
    if not name:
        return user
    if not user.superuser:
        raise forbidden(user, request, f"impersonate-on:user-info:{request.verb}")
    return tokens.named(name)
