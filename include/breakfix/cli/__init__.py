"""`breakfix`: what an engineer on call types. Every command that prints takes `-o table|json`.

Exit codes: 0 done; 1 an unexpected failure; 2 wrong usage, settings or policy; 3 a guardrail
refused (nothing was done, or not all of it); 4 something outside could not be reached; 5 what was
checked is not sound.
"""

from __future__ import annotations

import sys

from breakfix.cli.app import app
from breakfix.cli.output import ExitCode, complain
from breakfix.errors import BreakfixError, Refused, SettingsError, SourceError


def main() -> None:
    """Run the command line; every typed error is one clear line on stderr and its own exit code."""
    try:
        app()
    except SettingsError as e:
        sys.exit(complain(str(e), ExitCode.USAGE))
    except Refused as e:
        sys.exit(complain(f"refused ({e.reason}): {e}", ExitCode.REFUSED))
    except SourceError as e:
        sys.exit(complain(str(e), ExitCode.UNREACHABLE))
    except BreakfixError as e:
        sys.exit(complain(str(e), ExitCode.USAGE))


__all__ = ["app", "main"]
