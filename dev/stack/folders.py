"""Folders for servers that refuse to run as root.

A server is started as its own unprivileged user when we are root. That user may not be able to
enter the checkout (think of root's home), so its folder is then made among the temporary ones.
"""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Home:
    """Where a server keeps its data, and the user to start it as (None: the one we are)."""

    path: Path
    user: str | None

    def hand_over(self, *paths: Path) -> None:
        """Give files to the server's user."""
        if self.user is not None:
            for path in paths:
                shutil.chown(path, self.user, self.user)

    def remove(self) -> None:
        """Delete the folder; no error when it is gone."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self.path)


def make_home(folder: Path, *, users: tuple[str, ...]) -> Home:
    """Make an empty private folder; as root it belongs to the first of `users` that exists."""
    if os.geteuid() != 0:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, mode=0o700)
        return Home(folder, None)
    user = next(name for name in (*users, "nobody") if _exists(name))
    entry = pwd.getpwnam(user)
    path = Path(tempfile.mkdtemp(prefix=f"breakfix-{folder.name}-"))
    os.chown(path, entry.pw_uid, entry.pw_gid)
    return Home(path, user)


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True
