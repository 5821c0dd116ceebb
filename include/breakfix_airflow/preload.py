"""Imports what every task needs once, in the process that tasks are forked from.

A task is a fork of Airflow's worker, which knows nothing of the Kubernetes client; importing that
anew costs each task more than a second of processor time, and a case has some twenty tasks. Only
other people's packages are loaded here: our own code is still read anew by every task, so that a
deployment needs no restart of the workers. The processes that fork are the scheduler
(LocalExecutor) and Celery's worker.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Sequence

log = logging.getLogger(__name__)

FORKING = frozenset({"scheduler", "celery"})

PACKAGES = (
    "airflow.providers.standard.operators.empty",
    "airflow.providers.standard.operators.hitl",
    "alembic.command",
    "httpx",
    "kubernetes.client",
    "kubernetes.config",
    "msgspec",
    "prometheus_client",
    "psycopg",
    "pydantic_settings",
    "sqlalchemy.dialects.postgresql",
    "tenacity",
    "yaml",
)


def forks_tasks(arguments: Sequence[str]) -> bool:
    """Tell from a process's command line whether tasks are forked from it."""
    return len(arguments) > 1 and arguments[1] in FORKING


def preload(arguments: Sequence[str]) -> list[str]:
    """Import what is not there yet where tasks are forked; returns what is new.

    A package that cannot be imported is left to the task that needs it.
    """
    missing = [name for name in PACKAGES if name not in sys.modules]
    if not missing or not forks_tasks(arguments):
        return []
    loaded = []
    for name in missing:
        try:
            importlib.import_module(name)
        except ImportError as e:
            log.warning("%s is not preloaded: %s", name, e)
            continue
        loaded.append(name)
    log.info("loaded for the tasks to come: %s", ", ".join(loaded))
    return loaded
