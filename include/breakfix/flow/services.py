"""What the flow works with: the ports, the policy and the settings, handed in by whoever runs
it.
"""

from __future__ import annotations

from dataclasses import dataclass

from breakfix.errors import SettingsError
from breakfix.policy import Policy
from breakfix.ports import Clock, Cluster, Ledger, Metrics, Notifier
from breakfix.settings import Settings


@dataclass(frozen=True, slots=True)
class Services:
    """One cluster's ports. Judging and planning need no ledger; everything that acts does."""

    metrics: Metrics
    cluster: Cluster
    policy: Policy
    settings: Settings
    clock: Clock
    notifier: Notifier
    ledger: Ledger | None = None

    @property
    def book(self) -> Ledger:
        """The ledger, where one is needed. Raises SettingsError when none is configured."""
        if self.ledger is None:
            msg = "BREAKFIX_DATABASE_URL is not set: acting needs a ledger"
            raise SettingsError(msg)
        return self.ledger
