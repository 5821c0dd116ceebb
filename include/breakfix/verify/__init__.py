"""verify: evidence in, Outcome out. What is missing or unreadable is `cannot_tell`, not fixed."""

from breakfix.verify.bandwidth import (
    NVBANDWIDTH_TESTS,
    Bandwidth,
    bus_bandwidth,
    nccl_outcome,
    nvbandwidth_outcome,
)
from breakfix.verify.counters import CounterReading, counters_outcome
from breakfix.verify.diag import DiagAdvice, DiagError, DiagSummary, diag_outcome
from breakfix.verify.evidence import (
    boot_outcome,
    gpus_outcome,
    operator_outcome,
    signals_outcome,
)
from breakfix.verify.remedy import Remedy, remedy_of, remedy_of_diag

__all__ = [
    "NVBANDWIDTH_TESTS",
    "Bandwidth",
    "CounterReading",
    "DiagAdvice",
    "DiagError",
    "DiagSummary",
    "Remedy",
    "boot_outcome",
    "bus_bandwidth",
    "counters_outcome",
    "diag_outcome",
    "gpus_outcome",
    "nccl_outcome",
    "nvbandwidth_outcome",
    "operator_outcome",
    "remedy_of",
    "remedy_of_diag",
    "signals_outcome",
]
