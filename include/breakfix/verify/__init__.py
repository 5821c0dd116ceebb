"""verify: evidence in, Outcome out. What is missing or unreadable is `cannot_tell`, not fixed."""

from breakfix.verify.diag import DiagAdvice, DiagError, DiagSummary, diag_outcome
from breakfix.verify.evidence import (
    gpus_outcome,
    signals_outcome,
)

__all__ = [
    "DiagAdvice",
    "DiagError",
    "DiagSummary",
    "diag_outcome",
    "gpus_outcome",
    "signals_outcome",
]
