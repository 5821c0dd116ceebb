"""Who is at the keyboard: the name that the audit log keeps, and the one that is proven.

Whose answer it is says the ledger's database, which has authenticated whoever is connected, and the
policy, which knows whose own role that is. What the shell claims (a login, a variable) is no proof.
"""

from __future__ import annotations

import getpass
import os

from breakfix.errors import Refused
from breakfix.flow.services import Services
from breakfix.model import RefusalReason

_NOBODY = "role:"  # before a role of the ledger that policy maps to nobody


def actor() -> str:
    """`cli:<login>`; behind sudo the person who called it, not root."""
    return "cli:" + (os.environ.get("SUDO_USER") or _login())


def identity(services: Services) -> str:
    """The approver whose own role of the ledger's database this is, or the role as such."""
    role = services.book.role
    return services.policy.approvals.ledger_roles.get(role, f"{_NOBODY}{role}")


def proven_name(services: Services, *, instead: str) -> str:
    """Whose own role of the ledger's database this is; `instead` is the way for all others.

    Raises Refused (NOT_APPROVED).
    """
    who = identity(services)
    if who.startswith(_NOBODY):
        text = f"{who}: policy maps your role of the ledger's database to nobody"
        raise Refused(RefusalReason.NOT_APPROVED, f"{text} (approvals.ledger_roles): {instead}")
    return who


def requester(services: Services) -> str:
    """Who asks: the approver whose own role of the ledger it is, so that the same person cannot
    approve it under that name; else the login.
    """
    known = identity(services)
    return actor() if known.startswith(_NOBODY) else f"cli:{known}"


def _login() -> str:
    """A container may run as a user that no passwd file names."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid-{os.getuid()}"
