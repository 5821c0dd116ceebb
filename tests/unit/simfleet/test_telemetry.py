"""The exporters print the exact names and labels, and the traps of the real ones."""

from __future__ import annotations

import re
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from simfleet.faults import FaultOptions
from simfleet.hardware import GpuPod
from simfleet.node_exporter import render_node
from simfleet.telemetry import FIELDS, DcgmExporter
from tests.unit.simfleet.bench import make_bench

TRAINER = GpuPod("u-train", "team-a", "train-0", "trainer", 2)
GPU_LABELS = {
    "gpu", "UUID", "pci_bus_id", "device", "modelName", "Hostname", "DCGM_FI_DRIVER_VERSION",
}  # fmt: skip
# dcgm-exporter's default-counters.csv
DEFAULT_SET = {
    "DCGM_FI_DEV_SM_CLOCK", "DCGM_FI_DEV_MEM_CLOCK", "DCGM_FI_DEV_MEMORY_TEMP",
    "DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
    "DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_MEM_COPY_UTIL",
    "DCGM_FI_DEV_ENC_UTIL", "DCGM_FI_DEV_DEC_UTIL", "DCGM_FI_DEV_XID_ERRORS",
    "DCGM_FI_DEV_FB_FREE", "DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_FB_RESERVED",
    "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS",
    "DCGM_FI_DEV_ROW_REMAP_FAILURE", "DCGM_FI_DEV_VGPU_LICENSE_STATUS",
    "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL", "DCGM_FI_PROF_GR_ENGINE_ACTIVE",
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "DCGM_FI_PROF_DRAM_ACTIVE", "DCGM_FI_PROF_PCIE_TX_BYTES",
    "DCGM_FI_PROF_PCIE_RX_BYTES",
}  # fmt: skip


def samples(text):
    """All samples under the names they are printed with (the parser renames counters)."""
    declared = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    parsed = [s for family in text_string_to_metric_families(text) for s in family.samples]
    return [s if s.name in declared else s._replace(name=s.name[: -len("_total")]) for s in parsed]


def values(text, name, **labels):
    return [s.value for s in samples(text) if s.name == name and labels.items() <= s.labels.items()]


def test_without_configuration_the_exporter_shows_its_default_set(bench):
    text = DcgmExporter(bench.machine, "default").render()
    assert {s.name for s in samples(text)} == DEFAULT_SET


def test_the_full_set_adds_the_fields_that_are_off_by_default(bench):
    bench.machine.break_it("app_xid13")
    names = {s.name for s in samples(DcgmExporter(bench.machine, "full").render())}
    exporter_made = {
        "DCGM_FI_DEV_XID_ERRORS",
        "DCGM_EXP_XID_ERRORS_COUNT",
        "DCGM_EXP_XID_ERRORS_TOTAL",
        "DCGM_EXP_GPU_HEALTH_STATUS",
    }
    assert names == {field.name for field in FIELDS} | exporter_made
    assert names > DEFAULT_SET


def test_every_gpu_sample_carries_the_exporters_labels(bench):
    for sample in samples(DcgmExporter(bench.machine, "default").render()):
        extra = {"err_code", "err_msg"} if sample.name == "DCGM_FI_DEV_XID_ERRORS" else set()
        assert set(sample.labels) == GPU_LABELS | extra


def test_only_gpus_that_a_pod_holds_carry_its_labels_and_are_busy(bench):
    exporter = DcgmExporter(bench.machine, "default")
    bench.machine.place([TRAINER])
    text = exporter.render()
    assert len(values(text, "DCGM_FI_DEV_GPU_UTIL", pod="train-0", namespace="team-a")) == 2
    assert sorted(v > 50 for v in values(text, "DCGM_FI_DEV_GPU_UTIL")) == [False] * 6 + [True] * 2
    bench.machine.place([])
    assert "train-0" not in exporter.render()


def test_xids_are_shown_as_sticky_last_value_windowed_count_and_total(bench):
    exporter = DcgmExporter(bench.machine, "full")
    bench.machine.break_it("app_xid13", FaultOptions(gpu=1, count=3, every_s=5))
    bench.later(20)
    text = exporter.render()
    assert values(text, "DCGM_FI_DEV_XID_ERRORS", gpu="1", err_code="13") == [13]
    assert values(text, "DCGM_EXP_XID_ERRORS_COUNT", gpu="1", xid="13") == [3]
    assert values(text, "DCGM_EXP_XID_ERRORS_TOTAL", gpu="1", xid="13") == [3]
    bench.later(320)
    text = exporter.render()
    assert values(text, "DCGM_FI_DEV_XID_ERRORS", gpu="1") == [13]
    assert values(text, "DCGM_EXP_XID_ERRORS_COUNT", gpu="1") == [0]
    assert values(text, "DCGM_EXP_XID_ERRORS_TOTAL", gpu="1", xid="13") == [3]


def test_a_count_of_no_xids_is_zero_without_an_xid_label(bench):
    text = DcgmExporter(bench.machine, "full").render()
    found = [s for s in samples(text) if s.name == "DCGM_EXP_XID_ERRORS_COUNT"]
    assert {s.value for s in found} == {0}
    assert all("xid" not in s.labels and s.labels["window_size_in_ms"] == "300000" for s in found)


@pytest.mark.parametrize(
    ("fault", "name", "value"),
    [
        ("xid48", "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", 1),
        ("xid63", "DCGM_FI_DEV_ROW_REMAP_PENDING", 1),
        ("xid63", "DCGM_FI_DEV_GPU_RECOVERY_ACTION", 1),
        ("xid64", "DCGM_FI_DEV_ROW_REMAP_FAILURE", 1),
        ("xid95", "DCGM_FI_DEV_GPU_RECOVERY_ACTION", 4),
        ("nvlink_down", "DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL", 3),
        ("hot", "DCGM_FI_DEV_GPU_TEMP", 83),
    ],
)
def test_a_fault_shows_in_its_series_of_its_gpu_alone(bench, fault, name, value):
    exporter = DcgmExporter(bench.machine, "full")
    before = values(exporter.render(), name, gpu="6")
    bench.machine.break_it(fault, FaultOptions(gpu=6))
    text = exporter.render()
    assert (values(text, name, gpu="6"), before == [value]) == ([value], False)
    assert value not in values(text, name, gpu="5")


@pytest.mark.parametrize(
    ("fault", "watch", "code"),
    [
        ("xid48", "MEM", "DCGM_FR_VOLATILE_DBE_DETECTED"),
        ("xid64", "MEM", "DCGM_FR_ROW_REMAP_FAILURE"),
        ("xid74", "NVLINK", "DCGM_FR_NVLINK_DOWN"),
        ("xid79", "ALL", "DCGM_FR_FALLEN_OFF_BUS"),
        ("xid63", "DRIVER", "DCGM_FR_GPU_RECOVERY_RESET"),
    ],
)
def test_dcgm_health_fails_its_watch(bench, fault, watch, code):
    bench.machine.break_it(fault, FaultOptions(gpu=2))
    text = DcgmExporter(bench.machine, "full").render()
    found = values(
        text, "DCGM_EXP_GPU_HEALTH_STATUS", gpu="2", health_watch=watch, health_error_code=code
    )
    assert found == [20]


def test_frozen_series_keep_their_values_until_the_exporter_restarts(bench):
    exporter = DcgmExporter(bench.machine, "full")
    before = exporter.render()
    bench.machine.break_it("stale_series")
    bench.later(60)
    assert exporter.render() == before
    bench.machine.heal()
    assert exporter.render() != before


def test_half_of_the_series_can_vanish(bench):
    bench.machine.break_it("stale_series", FaultOptions(mode="vanish"))
    text = DcgmExporter(bench.machine, "full").render()
    assert {s.labels["gpu"] for s in samples(text)} == {"0", "2", "4", "6"}


def test_counters_grow_and_never_fall_while_nothing_is_reset(bench):
    exporter = DcgmExporter(bench.machine, "default")
    bench.machine.place([TRAINER])
    seen = []
    for _ in range(5):
        seen += values(exporter.render(), "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", gpu="0")
        bench.later(5)
    assert seen == sorted(seen)
    assert seen[-1] > seen[0]


def test_node_exporter_tells_boot_time_name_and_ports(bench):
    text = render_node(bench.machine)
    assert values(text, "node_boot_time_seconds") == [bench.machine.boot_time]
    assert values(text, "node_uname_info", nodename="node-1") == [1]
    assert values(text, "node_infiniband_state_id") == [4] * 8
    assert values(text, "node_filesystem_readonly", mountpoint="/") == [0]
    bench.run("reboot")
    (boot_time,) = values(render_node(bench.machine), "node_boot_time_seconds")
    assert bench.clock.at - boot_time < 60


def test_a_node_of_eight_gpus_is_rendered_in_well_under_ten_milliseconds():
    bench = make_bench()
    exporter = DcgmExporter(bench.machine, "full")
    exporter.render()
    took = []
    for _ in range(20):
        bench.clock.at += 5
        start = time.perf_counter()
        exporter.render()
        took.append(time.perf_counter() - start)
    assert sorted(took)[10] < 0.010
