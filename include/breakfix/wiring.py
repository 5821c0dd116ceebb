"""The one place where ports meet adapters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import NoReturn, cast

from breakfix.act.pod_repairs import POD_ACTIONS
from breakfix.adapters.clock import SystemClock
from breakfix.adapters.kubernetes import FleetLabels, KubernetesCluster, connect
from breakfix.adapters.ledger import PostgresLedger
from breakfix.adapters.notifier import LogNotifier
from breakfix.adapters.policy_file import Loaded, PolicyFile
from breakfix.adapters.prometheus import PrometheusMetrics
from breakfix.adapters.repairs.building import build_providers
from breakfix.errors import SettingsError
from breakfix.flow.services import Services
from breakfix.model import Action
from breakfix.policy import Policy, parse_policy
from breakfix.ports import Cluster, Metrics, QueryResult
from breakfix.resilience.breaker import CircuitStore
from breakfix.resilience.circuits import CircuitsInMemory, SharedCircuits
from breakfix.resilience.rate import RateLimit
from breakfix.settings import Settings


def load_policy(settings: Settings) -> Policy:
    """The default policy with the site's overlay. Raises SettingsError, a line per wrong value."""
    overlay = ""
    if settings.policy:
        path = Path(settings.policy).expanduser()
        try:
            overlay = path.read_text(encoding="utf-8")
        except OSError as e:
            raise SettingsError(f"BREAKFIX_POLICY: cannot read {path}: {e.strerror}") from e
    return parse_policy(default_policy_text(), overlay)


def policy_file(settings: Settings) -> PolicyFile:
    """The policy in force, for whoever lives longer than one look."""
    return PolicyFile(
        default_policy_text(),
        Path(settings.policy).expanduser() if settings.policy else None,
        kept=Path(settings.policy_kept).expanduser() if settings.policy_kept else None,
    )


def default_policy_text() -> str:
    """The YAML that ships with the package."""
    return resources.files("breakfix").joinpath("policy.yaml").read_text(encoding="utf-8")


def build_cluster(settings: Settings, circuits: CircuitStore | None = None) -> KubernetesCluster:
    """The Kubernetes API of BREAKFIX_KUBECONFIG, or the one this process runs in.

    Without `circuits` no breaker stands before it: so it is for a person's own command.
    """
    return connect(
        kubeconfig=settings.kubeconfig,
        context=settings.kube_context,
        timeout_s=settings.kube_timeout_s,
        labels=FleetLabels(
            pool=settings.label_pool,
            rack=settings.label_rack,
            sku=settings.label_sku,
            fabric=settings.label_fabric,
        ),
        gpu_resource=settings.gpu_resource,
        circuits=circuits,
    )


def rungs_of(settings: Settings) -> frozenset[Action]:
    """The repairs that somebody is there to do under these settings. Raises SettingsError."""
    return POD_ACTIONS | frozenset(
        build_providers(settings, now=float, circuits=CircuitsInMemory())
    )


def build_ledger(settings: Settings, policy: Policy | None = None) -> PostgresLedger:
    """The ledger of BREAKFIX_DATABASE_URL. Raises SettingsError when it is not set."""
    settings.require("database_url")
    if policy is None:  # the kill switch must work when the policy does not
        return PostgresLedger(settings.database_url, cluster=settings.cluster_name)
    return PostgresLedger(
        settings.database_url,
        cluster=settings.cluster_name,
        attempts_window_s=policy.limits.attempts_window_s,
    )


def build_services(
    settings: Settings,
    *,
    needs_ledger: bool,
    needs_metrics: bool = True,
    needs_cluster: bool = True,
    policy: Policy | None = None,
) -> Services:
    """Everything the flow needs for one cluster.

    With `needs_ledger` a missing BREAKFIX_DATABASE_URL raises SettingsError; without, a ledger that
    is configured is still used, so that a judgement knows what state a node is in. Without
    `needs_metrics` a missing BREAKFIX_PROMETHEUS_URL is an error only once metrics are asked for;
    `needs_cluster` says the same of the cluster's credentials.
    """
    if needs_metrics:
        settings.require("prometheus_url")
    file = None
    if policy is None:
        file = policy_file(settings)
        loaded = file.current()
    else:
        loaded = Loaded(policy)
    rules = loaded.policy
    ledger = None
    if needs_ledger or settings.database_url:
        ledger = build_ledger(settings, rules)
    circuits = build_circuits(ledger)
    return Services(
        metrics=_metrics(settings, circuits),
        cluster=build_cluster(settings, circuits) if needs_cluster else _no_cluster(),
        policy=rules,
        settings=settings,
        clock=SystemClock(),
        notifier=LogNotifier(),
        ledger=ledger,
        policies=_following(file, ledger) if file is not None else None,
        policy_note=loaded.note,
        providers=build_providers(
            settings, now=lambda: SystemClock().now().timestamp(), circuits=circuits
        ),
        circuits=circuits,
    )


#: What one process asks of Prometheus: two sweeps at once, then a sweep in some seconds. A bound on
#: what goes wild, not on what is meant.
QUERIES_PER_S, QUERIES_AT_ONCE = 50.0, 600
#: What stands behind a breaker always; webhooks and BMCs have theirs once they were asked.
DEPENDENCIES = ("kubernetes", "prometheus", "airflow")


def build_circuits(ledger: PostgresLedger | None) -> CircuitStore:
    """Where breakers have their state: all processes' in the ledger, or this one's without it.

    The ledger itself has none: without it nothing is done anyway, and the kill switch is in it.
    """
    return CircuitsInMemory() if ledger is None else SharedCircuits(ledger.circuits)


def _following(file: PolicyFile, ledger: PostgresLedger | None) -> Callable[[], tuple[Policy, str]]:
    """The policy in force, which the ledger follows in what it counts."""

    def in_force() -> tuple[Policy, str]:
        loaded = file.current()
        if ledger is not None:
            ledger.count_attempts_over(loaded.policy.limits.attempts_window_s)
        return loaded.policy, loaded.note

    return in_force


def _metrics(settings: Settings, circuits: CircuitStore) -> Metrics:
    if settings.prometheus_url:
        return PrometheusMetrics(
            settings.prometheus_url,
            timeout_s=settings.prometheus_timeout_s,
            circuits=circuits,
            rate=RateLimit(QUERIES_PER_S, burst=QUERIES_AT_ONCE),
        )
    return _NoMetrics(settings)


def _no_cluster() -> Cluster:
    """Stands where no cluster is needed; says so when it is asked."""
    return cast("Cluster", _NoCluster())


class _NoCluster:
    def __getattr__(self, name: str) -> NoReturn:
        raise SettingsError(f"no cluster is configured here to ask for its {name}")


class _NoMetrics:
    """Stands where no Prometheus is configured; says so when it is asked."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def query(self, promql: str, *, at: datetime) -> QueryResult:
        del promql, at
        self._settings.require("prometheus_url")
        raise SettingsError("no metrics are configured")

    def query_many(
        self, queries: Mapping[str, str], *, at: datetime
    ) -> Mapping[str, QueryResult | str]:
        return {name: self.query(promql, at=at) for name, promql in queries.items()}
