"""Makes tasks start quickly: see `breakfix_airflow.preload`."""

from __future__ import annotations

import sys
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from breakfix_airflow.preload import preload


class BreakfixPreload(AirflowPlugin):
    """Loads nothing into Airflow; only imports, in the processes that fork tasks."""

    name = "breakfix_preload"

    @classmethod
    def on_load(cls, *_args: Any, **_kwargs: Any) -> None:
        """Airflow calls this once per process, when it loads its plugins."""
        preload(sys.argv)
