"""The `Cluster` port over the official Kubernetes client."""

from breakfix.adapters.kubernetes.cluster import KubernetesCluster
from breakfix.adapters.kubernetes.connection import connect
from breakfix.adapters.kubernetes.decoding import FleetLabels

__all__ = ["FleetLabels", "KubernetesCluster", "connect"]
