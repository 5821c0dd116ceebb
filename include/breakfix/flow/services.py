"""What the flow works with: the ports, the policy and the settings, handed in by whoever runs
it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from breakfix.errors import SettingsError
from breakfix.model import Action
from breakfix.policy import Policy
from breakfix.ports import Clock, Cluster, Ledger, Metrics, Notifier, RepairProvider
from breakfix.resilience.breaker import CircuitStore
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
    #: The policy in force now, and why it is not what its file says ("" when it is).
    policies: Callable[[], tuple[Policy, str]] | None = None
    policy_note: str = ""
    #: Who does rungs that no pod on the node does, or does them instead of one.
    providers: Mapping[Action, RepairProvider] = field(default_factory=dict)
    #: Where the breakers of what is asked have their state; None: nothing is ever left alone.
    circuits: CircuitStore | None = None

    def refreshed(self) -> Services:
        """The same with the policy in force now: what every sweep, stage and request begins with.

        Whoever holds the result judges all of it by that one policy. Raises SettingsError only
        where no good policy was ever read.
        """
        if self.policies is None:
            return self
        policy, note = self.policies()
        return replace(self, policy=policy, policy_note=note)

    @property
    def book(self) -> Ledger:
        """The ledger, where one is needed. Raises SettingsError when none is configured."""
        if self.ledger is None:
            msg = "BREAKFIX_DATABASE_URL is not set: acting needs a ledger"
            raise SettingsError(msg)
        return self.ledger
