"""From a kubeconfig, or the pod we run in, to a cluster."""

from __future__ import annotations

import yaml
from kubernetes import client, config

from breakfix.adapters.kubernetes.cluster import KubernetesCluster
from breakfix.adapters.kubernetes.decoding import FleetLabels
from breakfix.adapters.kubernetes.transport import Transport
from breakfix.errors import SettingsError
from breakfix.resilience.breaker import CircuitStore


def connect(
    *,
    kubeconfig: str = "",
    context: str = "",
    timeout_s: float = 20.0,
    labels: FleetLabels | None = None,
    gpu_resource: str = "nvidia.com/gpu",
    circuits: CircuitStore | None = None,
) -> KubernetesCluster:
    """The cluster of a kubeconfig's context, or (no kubeconfig) the one this process runs in.

    With `circuits` an API server that keeps failing is left alone for a while. Nothing is sent yet.
    Raises SettingsError when there are no usable credentials.
    """
    settings = client.Configuration()
    try:
        if kubeconfig:
            config.load_kube_config(
                config_file=kubeconfig, context=context or None, client_configuration=settings
            )
        else:
            config.load_incluster_config(client_configuration=settings)
    except (config.ConfigException, yaml.YAMLError, AttributeError, OSError, TypeError) as e:
        where = "BREAKFIX_KUBECONFIG is not set, and no in-cluster credentials are usable"
        if kubeconfig:
            where = f"BREAKFIX_KUBECONFIG ({kubeconfig})"
        raise SettingsError(f"{where}: {e}") from e
    transport = Transport(client.ApiClient(settings), timeout_s=timeout_s, circuits=circuits)
    return KubernetesCluster(transport, labels=labels, gpu_resource=gpu_resource)
