"""Diagnostics and bandwidth tests of the simulated machines say what is true of them."""

from __future__ import annotations

import pytest

from breakfix.model import Outcome
from breakfix.policy_validation import Floors
from breakfix.verify import (
    NVBANDWIDTH_TESTS,
    DiagAdvice,
    diag_outcome,
    nccl_outcome,
    nvbandwidth_outcome,
)
from simfleet.faults import FaultOptions
from tests.unit.simfleet.bench import make_bench

FIXED, NOT_FIXED, CANNOT_TELL = Outcome.FIXED, Outcome.NOT_FIXED, Outcome.CANNOT_TELL
H100 = Floors(gpus=8, all_reduce=460, h2d=48, d2h=48, p2p=335, source="test")
A100 = Floors(gpus=8, all_reduce=228, h2d=21, d2h=21, p2p=235, source="test")


def all_reduce(bench, floors=H100):
    argv = ("all_reduce_perf", "-b", "16G", "-e", "16G", "-f", "2", "-g", "8")
    done = bench.run(*argv)
    return nccl_outcome(done.log, done.exit_code, gpus=8, floors=floors)


def copies(bench, floors=H100):
    done = bench.run("nvbandwidth", "-j", "-t", *NVBANDWIDTH_TESTS)
    return nvbandwidth_outcome(done.log, done.exit_code, gpus=8, floors=floors)


@pytest.mark.parametrize(("sku", "floors"), [("h100", H100), ("a100", A100)])
def test_a_healthy_machine_reaches_the_floors_of_its_sku(sku, floors):
    bench = make_bench(sku=sku)
    assert all_reduce(bench, floors)[0] is FIXED
    assert copies(bench, floors)[0] is FIXED


@pytest.mark.parametrize(
    ("fault", "reduces", "copied"),
    [
        pytest.param("slow_nvlink", NOT_FIXED, NOT_FIXED, id="NVLink slows both"),
        pytest.param("slow_pcie", FIXED, NOT_FIXED, id="PCIe slows only copies from the host"),
        pytest.param("xid79", CANNOT_TELL, CANNOT_TELL, id="a GPU that is gone"),
    ],
)
def test_a_slow_machine_is_below_them_until_it_is_mended(bench, fault, reduces, copied):
    bench.machine.break_it(fault, FaultOptions(gpu=3))
    assert (all_reduce(bench)[0], copies(bench)[0]) == (reduces, copied)
    bench.run("reboot")
    assert (all_reduce(bench)[0], copies(bench)[0]) == (FIXED, FIXED)


@pytest.mark.parametrize(
    ("fault", "outcome", "advice"),
    [
        pytest.param("bad_memory", NOT_FIXED, DiagAdvice.HARDWARE, id="severity isolate"),
        pytest.param("nvlink_down", NOT_FIXED, DiagAdvice.REBOOT, id="severity triage"),
        pytest.param("xid63", NOT_FIXED, DiagAdvice.RESET_AGAIN, id="severity reset"),
        pytest.param("gpu_missing", NOT_FIXED, DiagAdvice.SOFTWARE, id="severity config"),
        pytest.param("noisy_link", FIXED, DiagAdvice.WATCH, id="severity monitor"),
        pytest.param("diag_busy", CANNOT_TELL, DiagAdvice.RETRY, id="busy"),
        pytest.param("diag_missing", CANNOT_TELL, DiagAdvice.RETRY, id="plumbing"),
    ],
)
def test_a_fault_shows_in_the_diagnostic_with_its_severity(bench, fault, outcome, advice):
    bench.machine.break_it(fault, FaultOptions(gpu=2))
    done = bench.run("dcgmi", "diag", "-r", "2", "-j")
    told, summary = diag_outcome(
        done.log, done.exit_code, level=2, gpus=8, tests=("memory", "pcie")
    )
    assert (told, summary.advice) == (outcome, advice)


def test_a_validator_pod_waits_for_what_is_broken(bench):
    pod = {"metadata": {"labels": {"app": "nvidia-operator-validator"}}}
    assert bench.machine.init_blocked(pod) == ""
    bench.machine.break_it("toolkit_broken")
    assert bench.machine.init_blocked(pod) == "toolkit-validation"
    assert bench.machine.init_blocked({"metadata": {}}) == ""
