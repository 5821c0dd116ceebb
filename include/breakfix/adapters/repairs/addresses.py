"""Which hosts may be spoken to. An address may come from a node's annotation, which more people can
write than settings: it leads nowhere but to hosts that settings allow.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from urllib.parse import SplitResult, urlsplit

_DEFAULT_PORTS = {"https": 443, "http": 80}


class WrongAddress(ValueError):
    """The address is none, or leads where settings do not allow; the message is for a person."""


def checked_origin(address: str, allowed: Sequence[str]) -> tuple[str, str]:
    """(origin, path) of an address, e.g. `https://10.0.0.5` and "". Raises WrongAddress.

    https unless it is loopback; no user, query or fragment; the host as `allowed` has it: `name`,
    `.suffix`, an IP or a network, each with `:port` where that is not the scheme's own.
    """
    parts = _parts(address)
    host, port = parts.hostname or "", parts.port or _DEFAULT_PORTS[parts.scheme]
    if parts.scheme == "http" and not is_loopback(host):
        raise WrongAddress(f"{address!r}: http only to loopback, use https")
    if not any(_allows(entry, host, port, parts.scheme) for entry in allowed):
        raise WrongAddress(f"host {host!r} port {port} is not among those that settings allow")
    shown = f"[{host}]" if ":" in host else host
    is_default = port == _DEFAULT_PORTS[parts.scheme]
    return f"{parts.scheme}://{shown}{'' if is_default else f':{port}'}", parts.path.rstrip("/")


def _parts(address: str) -> SplitResult:
    text = address.strip()
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
        _ = parts.port
    except ValueError as e:
        raise WrongAddress(f"{address!r} is no address: {e}") from None
    odd = any(c.isspace() or c in "\\%" or not c.isprintable() for c in text)
    if odd or parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise WrongAddress(f"{address!r} is no http or https address")
    if parts.username is not None or parts.password is not None or "@" in parts.netloc:
        raise WrongAddress("an address carries no user or password: they are settings")
    if parts.query or parts.fragment or ".." in parts.path:
        raise WrongAddress(f"{address!r}: no query, fragment or `..` in an address")
    return parts


def is_loopback(host: str) -> bool:
    """Whether that is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _allows(entry: str, host: str, port: int, scheme: str) -> bool:
    name, wanted = _split_port(entry.strip().lower(), _DEFAULT_PORTS[scheme])
    if port != wanted or not name:
        return False
    if name.startswith("."):
        return host.endswith(name) and len(host) > len(name)
    try:
        network = ipaddress.ip_network(name, strict=False)
    except ValueError:
        return host == name
    try:
        return ipaddress.ip_address(host) in network
    except ValueError:
        return False


def _split_port(entry: str, default: int) -> tuple[str, int]:
    """`host`, `host:port`, `10.0.0.0/8:8443`, `[::1]:8443`; a bare IPv6 has no port."""
    if entry.startswith("["):
        name, _, port = entry[1:].partition("]")
        return name, int(port[1:]) if port[1:].isdigit() else default
    name, _, port = entry.rpartition(":")
    if name and ":" not in name and port.isdigit():
        return name, int(port)
    return entry, default
