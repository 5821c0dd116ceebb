"""all_reduce_perf and nvbandwidth: what counts as a pass, and what proves nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breakfix.model import Outcome
from breakfix.policy_validation import Floors
from breakfix.verify import bus_bandwidth, nccl_outcome, nvbandwidth_outcome

DATA = Path(__file__).parent.parent / "data" / "bandwidth"
FIXED, NOT_FIXED, CANNOT_TELL = Outcome.FIXED, Outcome.NOT_FIXED, Outcome.CANNOT_TELL
H100 = Floors(gpus=8, all_reduce=460, h2d=48, d2h=48, p2p=335, source="test")


def recorded(name: str) -> str:
    return (DATA / name).read_text()


def changed(name: str, old: str, new: str) -> str:
    text = recorded(name)
    assert old in text
    return text.replace(old, new)


NCCL, NCCL_JSON = recorded("nccl_h100.txt"), recorded("nccl_h100.json")


@pytest.mark.parametrize(
    ("text", "exit_code", "gpus", "outcome", "said"),
    [
        pytest.param(NCCL, 0, 8, FIXED, "481.3 of 460", id="a healthy H100 node, as text"),
        pytest.param(NCCL_JSON, 0, 8, FIXED, "481.3 of 460", id="the same as JSON"),
        pytest.param("noise {x} {}\n" + NCCL_JSON, 0, 8, FIXED, "481.3", id="JSON behind noise"),
        pytest.param(
            recorded("nccl_h100_ring.txt"), 0, 8, NOT_FIXED, "without NVLS", id="rings only"
        ),
        pytest.param(recorded("nccl_wrong.txt"), 0, 8, NOT_FIXED, "wrong", id="wrong results"),
        pytest.param(recorded("nccl_cut.txt"), 0, 8, CANNOT_TELL, "right", id="a log cut short"),
        pytest.param(NCCL, 1, 8, CANNOT_TELL, "exit status 1", id="another exit status"),
        pytest.param(NCCL, None, 8, CANNOT_TELL, "nobody knows", id="no exit status"),
        pytest.param("", 0, 8, CANNOT_TELL, "no result", id="an empty log"),
        pytest.param("NCCL WARN Cuda failure", 0, 8, CANNOT_TELL, "no result", id="only an error"),
        pytest.param(NCCL, 0, 9, CANNOT_TELL, "8 of 9", id="one GPU took no part"),
        pytest.param(
            NCCL_JSON.replace("481.3", '"nan"'),
            0,
            8,
            CANNOT_TELL,
            "no bandwidth",
            id="not a number",
        ),
        pytest.param(
            NCCL_JSON.replace('"okay": true', '"okay": false'),
            0,
            8,
            NOT_FIXED,
            "wrong",
            id="not ok",
        ),
        pytest.param(
            NCCL.replace("275.03  481.30", "275.03  681.30").replace("481.80", "681.80"),
            0,
            8,
            CANNOT_TELL,
            "does not go with",
            id="a bus bandwidth that its algorithm's contradicts",
        ),
        pytest.param(
            json.dumps({"results": []}), 0, 8, CANNOT_TELL, "no result", id="JSON without results"
        ),
    ],
)
def test_an_all_reduce_passes_only_at_its_floor(text, exit_code, gpus, outcome, said):
    told, run = nccl_outcome(text, exit_code, gpus=gpus, floors=H100)
    assert told is outcome
    assert said in run.text


def test_the_version_of_nccl_and_nvls_are_kept_with_the_result():
    _, run = nccl_outcome(NCCL, 0, gpus=8, floors=H100)
    assert (run.nccl_version, run.has_nvls) == ("2.27.3+cuda12.9", True)
    _, run = nccl_outcome(recorded("nccl_h100_ring.txt"), 0, gpus=8, floors=H100)
    assert run.has_nvls is False
    _, run = nccl_outcome(NCCL_JSON, 0, gpus=8, floors=H100)
    assert (run.nccl_version, run.has_nvls) == ("2.27.3", None)


def test_the_largest_size_counts_and_of_it_the_slower_side():
    _, run = nccl_outcome(NCCL, 0, gpus=8, floors=H100)
    assert run.measured == {"all_reduce": 481.30}


@pytest.mark.parametrize(
    ("ranks", "bus"), [(2, 100.0), (4, 150.0), (8, 175.0)], ids=["two", "four", "eight"]
)
def test_the_bus_bandwidth_is_the_algorithms_times_its_share(ranks, bus):
    assert bus_bandwidth(100.0, ranks) == pytest.approx(bus)


def test_one_rank_has_no_bus():
    with pytest.raises(ValueError, match="no bus"):
        bus_bandwidth(100.0, 1)


COPIES, COPIES_JSON = recorded("nvbandwidth_h100.txt"), recorded("nvbandwidth_h100.json")


def copies_with(test: str, **changes) -> str:
    document = json.loads(COPIES_JSON)
    cases = document["nvbandwidth"]["testcases"]
    next(c for c in cases if c["name"] == test).update(changes)
    return json.dumps(document)


def copies_without(test: str) -> str:
    document = json.loads(COPIES_JSON)
    cases = document["nvbandwidth"]["testcases"]
    document["nvbandwidth"]["testcases"] = [c for c in cases if c["name"] != test]
    return json.dumps(document)


H2D, READ = "host_to_device_memcpy_ce", "device_to_device_memcpy_read_ce"


@pytest.mark.parametrize(
    ("text", "gpus", "outcome", "said"),
    [
        pytest.param(COPIES, 8, FIXED, "p2p 391.2 of 335", id="a healthy H100 node, as text"),
        pytest.param(COPIES_JSON, 8, FIXED, "p2p 389.7 of 335", id="the same as JSON"),
        pytest.param(
            copies_with(H2D, bandwidth_matrix=[["55.1"] * 7 + ["23.9"]]),
            8,
            NOT_FIXED,
            "h2d 23.9 of 48",
            id="one GPU on half of its PCIe lanes",
        ),
        pytest.param(
            changed("nvbandwidth_h100.txt", "  391.30", "  201.30"),
            8,
            NOT_FIXED,
            "p2p 201.3",
            id="one slow pair, as text",
        ),
        pytest.param(COPIES_JSON, 7, CANNOT_TELL, "8 of 7", id="another number of GPUs"),
        pytest.param(
            changed("nvbandwidth_h100.txt", "  391.30", "     N/A"),
            8,
            CANNOT_TELL,
            "of its values",
            id="a pair without peer access",
        ),
        pytest.param(
            copies_with(READ, status="Error"), 8, CANNOT_TELL, "did not pass", id="a failed test"
        ),
        pytest.param(copies_without(H2D), 8, CANNOT_TELL, "h2d was not measured", id="one missing"),
        pytest.param(
            copies_with(H2D, status="Waived"), 8, CANNOT_TELL, "h2d was not", id="one waived"
        ),
        pytest.param("", 8, CANNOT_TELL, "no result", id="an empty log"),
        pytest.param('{"nvbandwidth": {"error": "x"}}', 8, CANNOT_TELL, "testcases", id="no tests"),
    ],
)
def test_copies_pass_only_at_their_floors(text, gpus, outcome, said):
    told, run = nvbandwidth_outcome(text, 0, gpus=gpus, floors=H100)
    assert told is outcome
    assert said in run.text


def test_a_node_whose_floors_are_all_zero_proves_nothing():
    assert nccl_outcome(NCCL, 0, gpus=8, floors=Floors(source="x"))[0] is CANNOT_TELL


@given(st.text(max_size=300))
def test_no_text_passes_by_chance_and_none_breaks_it(text):
    for judge in (nccl_outcome, nvbandwidth_outcome):
        assert judge(text, 0, gpus=8, floors=H100)[0] is not FIXED


@given(at=st.integers(0, 2000), end=st.integers(0, 2000))
def test_no_output_that_lost_a_piece_passes_with_more_than_was_measured(at, end):
    for text, judge in ((NCCL, nccl_outcome), (COPIES_JSON, nvbandwidth_outcome)):
        outcome, run = judge(text[:at] + text[at + end :], 0, gpus=8, floors=H100)
        if outcome is FIXED:
            assert run.measured.get("all_reduce", 460) <= 482
