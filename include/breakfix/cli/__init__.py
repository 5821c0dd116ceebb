"""`breakfix`: what an engineer on call types. Every command that prints takes `-o table|json`.

Exit codes: 0 done; 1 an unexpected failure; 2 wrong usage, settings or policy; 3 a guardrail
refused (nothing was done, or not all of it); 4 something outside could not be reached; 5 what was
checked is not sound.
"""

from __future__ import annotations

import logging
import sys

from breakfix.cli.app import app
from breakfix.cli.output import ExitCode, complain
from breakfix.errors import BreakfixError, NotFound, Refused, SettingsError, SourceError

log = logging.getLogger(__name__)


def main() -> None:
    """Run the command line; every error is one clear line on stderr, with its own exit code."""
    try:
        app()
    except (SettingsError, NotFound) as e:
        sys.exit(complain(str(e), ExitCode.USAGE))
    except Refused as e:
        sys.exit(complain(f"refused ({e.reason}): {e}", ExitCode.REFUSED))
    except SourceError as e:
        sys.exit(complain(str(e), ExitCode.UNREACHABLE))
    except BreakfixError as e:
        sys.exit(complain(str(e), ExitCode.USAGE))
    except Exception as e:
        log.debug("unexpected", exc_info=e)
        sys.exit(complain(f"unexpected {type(e).__name__}: {e}", ExitCode.FAILED))


__all__ = ["app", "main"]
