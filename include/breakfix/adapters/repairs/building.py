"""Providers from settings. Every wrong setting is named in one clear line."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from breakfix.adapters.repairs.addresses import is_loopback
from breakfix.adapters.repairs.redfish import RedfishRepairs, RedfishSettings
from breakfix.adapters.repairs.webhook import WebhookRepairs, WebhookSettings
from breakfix.errors import SettingsError
from breakfix.model import REPAIRS, Action
from breakfix.ports import RepairProvider
from breakfix.resilience.breaker import CircuitStore
from breakfix.settings import Settings, words_of_map

REDFISH = "redfish"
#: What a BMC can do; the rest is for webhooks.
REDFISH_ACTIONS = frozenset({Action.POWER_CYCLE, Action.REBOOT_NODE})
_SHORTEST_SECRET = 32  # bytes of an HMAC-SHA256 key


def build_providers(
    settings: Settings, *, now: Callable[[], float], circuits: CircuitStore
) -> Mapping[Action, RepairProvider]:
    """Who does which rung, by BREAKFIX_REPAIR_PROVIDERS. Raises SettingsError."""
    found: dict[Action, RepairProvider] = {}
    for word, who in words_of_map(settings.repair_providers).items():
        action = _action(word)
        found[action] = (
            _redfish(settings, action, circuits)
            if who == REDFISH
            else _webhook(settings, who, now, circuits)
        )
    return found


def _action(word: str) -> Action:
    if word not in REPAIRS:
        known = ", ".join(sorted(REPAIRS))
        raise SettingsError(f"BREAKFIX_REPAIR_PROVIDERS: {word!r} is no repair; they are {known}")
    return Action(word)


def _redfish(settings: Settings, action: Action, circuits: CircuitStore) -> RedfishRepairs:
    if action not in REDFISH_ACTIONS:
        raise SettingsError(f"BREAKFIX_REPAIR_PROVIDERS: Redfish does no {action}: name a webhook")
    settings.require("redfish_hosts", "redfish_user", "redfish_password")
    hosts = tuple(h.strip() for h in settings.redfish_hosts.split(",") if h.strip())
    return RedfishRepairs(
        RedfishSettings(
            hosts=hosts,
            user=settings.redfish_user,
            password=settings.redfish_password,
            addresses=words_of_map(settings.redfish_addresses),
            annotation=settings.redfish_annotation,
            auth=settings.redfish_auth,
            ca_file=settings.redfish_ca,
            timeout_s=settings.redfish_timeout_s,
        ),
        circuits=circuits,
    )


def _webhook(
    settings: Settings, url: str, now: Callable[[], float], circuits: CircuitStore
) -> WebhookRepairs:
    scheme, _, rest = url.partition("://")
    host = rest.partition("/")[0].rpartition(":")[0] or rest.partition("/")[0]
    is_safe = scheme == "https" or (scheme == "http" and is_loopback(host.strip("[]")))
    if not is_safe or not rest or "@" in rest.partition("/")[0]:
        raise SettingsError(
            f"BREAKFIX_REPAIR_PROVIDERS: {url!r} is neither `redfish` nor an https URL without"
            " user (http only to loopback)"
        )
    if len(settings.webhook_secret) < _SHORTEST_SECRET:
        raise SettingsError(
            f"BREAKFIX_WEBHOOK_SECRET needs at least {_SHORTEST_SECRET} characters: it signs what"
            " may replace a machine"
        )
    return WebhookRepairs(
        WebhookSettings(url, settings.webhook_secret, settings.webhook_timeout_s),
        now=now,
        circuits=circuits,
    )
