"""A Kubernetes API in memory: real HTTP, no cluster behind it."""

from simfleet.kube.auth import READ_ONLY, Rule, Tokens, User, admin
from simfleet.kube.errors import ApiError
from simfleet.kube.faults import ApiFault, FaultKind, Faults
from simfleet.kube.seeds import node, seed_cluster
from simfleet.kube.server import KubeApi
from simfleet.kube.simkube import ADMIN_TOKEN, SimKube, kubeconfig, run_server, url_of
from simfleet.kube.store import Change, Store, Subscription

__all__ = [
    "ADMIN_TOKEN",
    "READ_ONLY",
    "ApiError",
    "ApiFault",
    "Change",
    "FaultKind",
    "Faults",
    "KubeApi",
    "Rule",
    "SimKube",
    "Store",
    "Subscription",
    "Tokens",
    "User",
    "admin",
    "kubeconfig",
    "node",
    "run_server",
    "seed_cluster",
    "url_of",
]
