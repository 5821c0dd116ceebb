"""Who repairs from outside the node: BMCs over Redfish, and webhooks.

A node agent has its place here, too: another `ports.RepairProvider` beside these, named in
BREAKFIX_REPAIR_PROVIDERS.
"""

from breakfix.adapters.repairs.redfish import RedfishRepairs, RedfishSettings
from breakfix.adapters.repairs.webhook import WebhookRepairs, WebhookSettings

__all__ = ["RedfishRepairs", "RedfishSettings", "WebhookRepairs", "WebhookSettings"]
