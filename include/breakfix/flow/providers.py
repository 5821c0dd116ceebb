"""Who does which rung: what is configured, and pods on the node for what they can do."""

from __future__ import annotations

from breakfix.act.pod_repairs import POD_ACTIONS, PodRepairs
from breakfix.act.pods import PodSettings
from breakfix.errors import Refused
from breakfix.flow.services import Services
from breakfix.model import REPAIRS, Action, RefusalReason
from breakfix.ports import RepairProvider
from breakfix.settings import Settings


def available(services: Services) -> frozenset[Action]:
    """The rungs that somebody is there to do."""
    return POD_ACTIONS | frozenset(services.providers)


def provider_for(services: Services, action: Action) -> RepairProvider:
    """Raises Refused (UNSUPPORTED) when nobody is configured for that rung."""
    configured = services.providers.get(action)
    if configured is not None:
        return configured
    if action in POD_ACTIONS:
        return PodRepairs(services.cluster, pod_settings(services.settings))
    if action in REPAIRS:
        raise Refused(
            RefusalReason.UNSUPPORTED,
            f"nobody is configured to do {action}: see BREAKFIX_REPAIR_PROVIDERS",
        )
    raise Refused(RefusalReason.UNSUPPORTED, f"{action} is no repair")


def pod_settings(settings: Settings) -> PodSettings:
    """Where our own pods run, and what from."""
    return PodSettings(
        namespace=settings.namespace,
        repair_image=settings.repair_image,
        diag_image=settings.diag_image,
        nccl_image=settings.nccl_image,
        nvbandwidth_image=settings.nvbandwidth_image,
        deadline_s=settings.pod_deadline_s,
        gpu_resource=settings.gpu_resource,
    )
