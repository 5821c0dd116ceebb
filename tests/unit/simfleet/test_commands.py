"""Command lines of repair and validation pods have the effect they have on a real node."""

from __future__ import annotations

import json

import pytest

from simfleet.faults import FaultOptions
from simfleet.hardware import GpuPod
from tests.unit.simfleet.bench import one_shot

TRAINER = GpuPod("u-train", "team-a", "train-0", "trainer", 8)


@pytest.mark.parametrize(
    "argv",
    [
        ["reboot"],
        ["/sbin/shutdown", "-r", "now"],
        ["nsenter", "-t", "1", "-m", "-u", "-i", "-n", "-p", "--", "systemctl", "reboot"],
        ["nsenter", "--target=1", "--mount", "systemctl", "reboot", "--force"],
        ["chroot", "/host", "systemctl", "reboot"],
        ["sh", "-c", "sync; echo b > /proc/sysrq-trigger"],
        ["/bin/sh", "-ec", "test -n x\nexec nsenter -t 1 -m -- /bin/systemctl reboot"],
    ],
    ids=" ".join,
)
def test_a_reboot_however_it_is_written_changes_the_boot_id(bench, argv):
    boot = bench.machine.boot_id
    assert bench.run(*argv).exit_code == 0
    assert bench.machine.boot_id != boot
    assert bench.machine.boots == 1


@pytest.mark.parametrize("expected", ["right", "wrong"])
@pytest.mark.parametrize(
    "script",
    [
        (
            'if [ "$(cat /proc/sys/kernel/random/boot_id)" != "$EXPECTED" ]; then\n'
            "  echo stale; exit 3\nfi\nsystemctl reboot"
        ),
        '[ "$(cat /proc/sys/kernel/random/boot_id)" = "${EXPECTED}" ] && systemctl reboot',
        "set -e\ngrep -qx $EXPECTED /proc/sys/kernel/random/boot_id\nsystemctl reboot",
        'grep -qFx "$EXPECTED" /proc/sys/kernel/random/boot_id || exit 75; systemctl reboot',
        'now=$(cat /proc/sys/kernel/random/boot_id)\ntest "$now" = "$EXPECTED" || exit 3\nreboot',
    ],
)
def test_a_script_that_compares_the_boot_id_reboots_only_that_boot(bench, script, expected):
    boot = bench.machine.boot_id
    env = {"EXPECTED": boot if expected == "right" else "0000-stale"}
    done = bench.run("sh", "-c", script, env=env)
    assert (bench.machine.boot_id != boot) == (expected == "right")
    assert (done.exit_code == 0) == (expected == "right")


def test_a_reset_is_refused_while_somebody_else_holds_a_gpu(bench):
    bench.machine.break_it("xid95")
    bench.machine.place([TRAINER])
    refused = bench.run("nvidia-smi", "--gpu-reset")
    assert refused.exit_code == 19
    assert "In use" in refused.log
    assert bench.machine.faults
    bench.machine.place([])
    assert bench.run("nvidia-smi", "--gpu-reset").exit_code == 0
    assert bench.machine.faults == []


@pytest.mark.parametrize("by", ["index", "uuid", "bus id"])
def test_a_reset_of_one_gpu_may_name_it_by(bench, by):
    gpu = bench.machine.gpus[2]
    bench.machine.break_it("xid48", FaultOptions(gpu=2))
    name = {"index": "2", "uuid": gpu.uuid, "bus id": gpu.pci_bus_id}[by]
    assert bench.run("nvidia-smi", "--gpu-reset", "-i", name).exit_code == 0
    assert bench.machine.faults == []


def test_a_reset_of_an_unknown_gpu_fails(bench):
    assert bench.run("nvidia-smi", "--gpu-reset", "-i", "42").exit_code == 6


@pytest.mark.parametrize(("level", "tests"), [("1", 1), ("2", 3), ("3", 8), ("4", 10)])
def test_a_healthy_machine_passes_every_diag_level(bench, level, tests):
    done = bench.run("dcgmi", "diag", "-r", level, "-j")
    assert done.exit_code == 0
    diag = json.loads(done.log)["DCGM Diagnostic"]
    found = [test for category in diag["test_categories"] for test in category["tests"]]
    assert len(found) == tests
    assert {test["test_summary"]["status"] for test in found} == {"Pass"}
    assert {len(test["results"]) for test in found} == {8}


@pytest.mark.parametrize(
    ("fault", "level", "exit_code", "error_id", "severity"),
    [
        ("xid63", "1", 226, 85, 6),
        ("xid64", "1", 226, 80, 6),
        ("xid79", "1", 205, 120, 2),
        ("gpu_missing", "1", 226, 20, 5),
        ("xid48", "1", 0, None, None),
        ("xid48", "2", 205, 4, 2),
        ("xid95", "2", 205, 81, 2),
        ("bad_memory", "2", 205, 58, 2),
        ("nvlink_down", "2", 226, 14, 4),
        ("bad_driver", "2", 226, 101, 4),
        ("hot", "3", 0, None, None),
        ("app_xid31", "3", 0, None, None),
    ],
)
def test_diag_reports_what_is_broken(bench, fault, level, exit_code, error_id, severity):
    bench.machine.break_it(fault, FaultOptions(gpu=3))
    done = bench.run("dcgmi", "diag", "--run", level, "--json")
    assert done.exit_code == exit_code
    answer = json.loads(done.log)["DCGM Diagnostic"]
    warnings = [
        (w["error_id"], w["error_severity"])
        for category in answer["test_categories"]
        for test in category["tests"]
        for result in test["results"]
        for w in result.get("warnings", [])
    ]
    assert warnings == ([] if error_id is None else [(error_id, severity)])


def test_a_second_diag_at_the_same_time_is_refused(bench):
    assert bench.machine.run(one_shot("dcgmi", "diag", "-r", "2", "-j")).exit_code == 0
    second = bench.machine.run(one_shot("dcgmi", "diag", "-r", "1", "-j"))
    assert second.exit_code == 217
    assert list(json.loads(second.log)["DCGM Diagnostic"]) == ["runtime_error"]


def test_diag_beside_a_running_job_does_not_pass(bench):
    bench.machine.place([TRAINER])
    assert bench.run("dcgmi", "diag", "-r", "2", "-j").exit_code == 226


def test_diag_of_a_hung_dcgm_gives_a_runtime_error(bench):
    bench.machine.break_it("dcgm_hung")
    done = bench.run("dcgmi", "diag", "-r", "1", "-j")
    assert done.exit_code == 215
    assert "runtime_error" in done.log


def test_durations_are_the_nominal_ones_divided_by_the_speed(bench):
    execution = bench.machine.run(one_shot("dcgmi", "diag", "-r", "2", "-j"))
    assert execution.duration_s == pytest.approx(2.0)


def test_list_and_query_show_the_gpus_on_the_bus(bench):
    bench.machine.break_it("gpu_missing", FaultOptions(gpu=0))
    assert bench.run("nvidia-smi", "-L").log.count("UUID: GPU-") == 7
    listed = bench.run("nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader").log
    assert len(listed.splitlines()) == 7


@pytest.mark.parametrize(
    ("script", "code", "log"),
    [
        ("echo hello", 0, "hello\n"),
        ("false || echo again", 0, "again\n"),
        ("false && echo never", 1, ""),
        ("set -e\nfalse\necho never", 1, ""),
        ("exit 7; echo never", 7, ""),
        ("! false", 0, ""),
        ("if false; then echo a; elif true; then echo b; else echo c; fi", 0, "b\n"),
        ("A=1; echo ${A} ${B:-none} '$A' \"x $A\"", 0, "1 none $A x 1\n"),
        ("nvidia-smi -L | grep -q 'UUID: GPU-'", 0, ""),
        ("echo to-file > out; echo shown 2>/dev/null", 0, "shown\n"),
        ("frobnicate --now", 127, "frobnicate: command not found on this simulated node\n"),
        ("if true; then", 2, None),
        ('grep -qFx "$UNSET" /proc/sys/kernel/random/boot_id || exit 75; reboot', 75, ""),
        ("nv-hostengine >/dev/null 2>&1; exec dcgmi diag -r 1 -j", 0, None),
    ],
)
def test_the_shell_understands(bench, script, code, log):
    done = bench.run("sh", "-c", script)
    assert done.exit_code == code
    if log is not None:
        assert done.log == log


def test_an_unknown_command_ends_with_127(bench):
    assert bench.run("frobnicate").exit_code == 127


@pytest.mark.parametrize(
    "spec",
    [
        {"restartPolicy": "Always", "containers": [{"command": ["python", "serve.py"]}]},
        {"containers": [{"command": ["reboot"]}]},
        {"restartPolicy": "Never", "containers": [{"name": "image-entrypoint"}]},
        {"restartPolicy": "Never", "containers": [{"command": ["sleep", "infinity"]}]},
    ],
    ids=["always", "default policy", "no command", "sleeps for ever"],
)
def test_a_service_runs_until_it_is_stopped(bench, spec):
    assert bench.machine.run({"metadata": {"uid": "u"}, "spec": spec}) is None
