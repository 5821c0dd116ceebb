"""The one tree of errors.

BreakfixError
├── SettingsError          a setting or the policy is wrong: nothing was done
├── SourceError            something outside could not be read or written
│   ├── MetricsError       Prometheus
│   ├── ClusterError       the Kubernetes API
│   │   ├── NotFound       the object is gone
│   │   ├── Conflict       somebody else changed it first: read again
│   │   └── Forbidden      our credentials do not allow it
│   ├── LedgerError        the ledger
│   ├── AirflowError       Airflow's public API
│   ├── RepairError        who repairs for us: a BMC, a webhook; says whether it may be done
│   └── CircuitOpen        failed so often that it is left alone for a while
├── Refused                a guardrail said no; carries the Refusal's reason
│   └── StaleFence         the case changed hands
└── IllegalTransition      the state machine does not know this way
"""

from __future__ import annotations

from datetime import datetime

from breakfix.model import NodeState, RefusalReason


class BreakfixError(Exception):
    """Base of all errors this project raises on purpose; the message is for a person."""


class SettingsError(BreakfixError):
    """A setting or the policy is wrong; says which, and what to do."""


class SourceError(BreakfixError):
    """Something outside could not be read or written. `is_transient`: asking again may help."""

    def __init__(self, message: str, *, is_transient: bool = False) -> None:
        super().__init__(message)
        self.is_transient = is_transient


class MetricsError(SourceError):
    """Prometheus did not answer, or not with what was asked."""


class ClusterError(SourceError):
    """The Kubernetes API did not do what was asked."""


class NotFound(ClusterError):
    """The object does not exist (any more)."""


class Conflict(ClusterError):
    """The object changed since it was read: read it again before deciding again."""


class Forbidden(ClusterError):
    """The credentials do not allow this."""


class LedgerError(SourceError):
    """The ledger could not be read or written."""


class AirflowError(SourceError):
    """Airflow's public API could not be asked."""


class RepairError(SourceError):
    """Who repairs for us did not take the request, or did not say so.

    `is_unclear`: it may have been done all the same, so it is never asked for again.
    """

    def __init__(
        self, message: str, *, is_unclear: bool = False, is_transient: bool = False
    ) -> None:
        super().__init__(message, is_transient=is_transient)
        self.is_unclear = is_unclear


class CircuitOpen(SourceError):
    """Not asked, because it failed too often just now; `until` says when somebody may try.

    Whoever needed the answer holds its act, and asks again then.
    """

    def __init__(self, message: str, *, until: datetime | None = None) -> None:
        super().__init__(message, is_transient=True)
        self.until = until


class Refused(BreakfixError):
    """A guardrail said no. Not a failure: it is recorded, and nothing was done."""

    def __init__(self, reason: RefusalReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class StaleFence(Refused):
    """The case has a newer fence than the caller's: somebody else has it now."""

    def __init__(self, message: str) -> None:
        super().__init__(RefusalReason.STALE_FENCE, message)


class IllegalTransition(BreakfixError):
    """The state machine does not allow this way."""

    def __init__(self, before: NodeState, after: NodeState) -> None:
        super().__init__(f"a node cannot go from {before} to {after}")
