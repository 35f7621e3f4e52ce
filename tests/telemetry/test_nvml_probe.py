"""NvmlProbe through the real pynvml, over a stand-in driver library built from C."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from agentic_ray.telemetry.nvml import NvmlProbe, throttle_names
from tests.support.waiting import until

UUID_0 = "GPU-0000aaaa-0000-0000-0000-000000000000"
UUID_1 = "GPU-1111aaaa-0000-0000-0000-000000000001"
GIB = 2**30

FIGURES = (
    "memory_total_bytes",
    "memory_free_bytes",
    "memory_used_bytes",
    "utilization",
    "process_count",
    "temperature_celsius",
    "power_watts",
    "ecc_uncorrected",
    "throttle_reasons",
)


def gpu(reading: dict[str, Any], uuid: str) -> dict[str, Any]:
    found: dict[str, Any] = next(gpu for gpu in reading["gpus"] if gpu["uuid"] == uuid)
    return found


def test_all_figures_of_two_gpus(standin: Any) -> None:
    standin.write(gpu__1__throttle=0x44, gpu__1__util=100)
    reading = standin.read()
    assert reading["reason"] is None
    first, second = reading["gpus"]
    assert (first["uuid"], first["index"], first["name"]) == (UUID_0, 0, "NVIDIA Test 80GB")
    assert first["memory_total_bytes"] == 80 * GIB
    assert first["memory_free_bytes"] == 70 * GIB
    assert first["memory_used_bytes"] == 9 * GIB  # version 2: without what the driver reserves
    assert first["utilization"] == pytest.approx(0.37)
    assert first["process_count"] == 2
    assert first["temperature_celsius"] == 45
    assert first["power_watts"] == pytest.approx(123.456)
    assert first["ecc_uncorrected"] == 0
    assert first["throttle_reasons"] == []
    assert first["healthy"]
    assert first["xid"] is None
    assert first["mig_parent"] is None
    assert second["uuid"] == UUID_1
    assert second["throttle_reasons"] == ["sw_power_cap", "hw_thermal_slowdown"]
    assert second["utilization"] == 1.0


def test_memory_taken_by_another_process_is_seen(standin: Any) -> None:
    standin.read()
    standin.write(gpu__0__free=GIB, gpu__0__used=78 * GIB, gpu__0__processes=3)
    first = standin.read()["gpus"][0]
    assert (first["memory_free_bytes"], first["process_count"]) == (GIB, 3)


@pytest.mark.parametrize("code", [2, 3, 4, 13, 17, 999])
def test_a_query_that_fails_is_none_and_the_rest_stays(standin: Any, code: int) -> None:
    standin.set("gpu.0.error.nvmlDeviceGetPowerUsage", code)
    standin.set("gpu.0.error.nvmlDeviceGetUtilizationRates", code)
    standin.write()
    first, second = standin.read()["gpus"]
    assert (first["power_watts"], first["utilization"]) == (None, None)
    assert first["temperature_celsius"] == 45
    assert first["healthy"]
    assert second["power_watts"] is not None


def test_sizes_that_no_gpu_has_are_unknown(standin: Any) -> None:
    standin.write(gpu__0__used=2**64 - 4096, gpu__0__free=2**64 - 1)
    first = standin.read()["gpus"][0]
    assert (first["memory_used_bytes"], first["memory_free_bytes"]) == (None, None)
    assert first["memory_total_bytes"] == 80 * GIB


def test_a_second_gpu_of_one_uuid_is_told_and_left_out(standin: Any) -> None:
    standin.write(gpu__1__uuid=UUID_0)
    reading = standin.read()
    assert [gpu["index"] for gpu in reading["gpus"]] == [0]
    assert "GPU 1: another GPU of this machine has its UUID" in reading["reason"]


def test_text_that_is_no_text_is_told(standin: Any) -> None:
    standin.write(gpu__0__name="NVIDIA \udcff", gpu__1__uuid="GPU-\udcff\udcfe")
    reading = standin.read()
    assert [(gpu["index"], gpu["name"]) for gpu in reading["gpus"]] == [(0, "NVIDIA GPU")]
    assert reading["reason"] == "GPU 1: nvmlDeviceGetUUID answers what is not UTF-8 text"


def test_a_card_that_supports_nothing(standin: Any) -> None:
    names = ("total", "free", "used", "util", "processes", "temp", "power", "ecc", "throttle")
    for name in (*names, "mig", "bus"):
        standin.set(f"gpu.0.{name}", None)
    standin.write()
    first = standin.read()["gpus"][0]
    assert {name: first[name] for name in FIGURES} == dict.fromkeys(FIGURES)
    assert first["healthy"]


def test_an_old_driver_without_the_new_symbols(
    make_standin: Callable[[Path], Any], old_driver: Path
) -> None:
    standin = make_standin(old_driver)
    standin.add_gpu(0, throttle=0x8)
    standin.write()
    first = standin.read()["gpus"][0]
    assert first["memory_used_bytes"] == 10 * GIB  # version 1 counts the reserved part as used
    assert first["temperature_celsius"] == 45
    assert first["process_count"] == 2
    assert first["throttle_reasons"] == ["hw_slowdown"]
    assert standin.do("threads") == ["MainThread"]  # no events there, so no thread


def test_mig_instances_are_devices_and_their_gpu_is_not(standin: Any) -> None:
    standin.write(gpu__0__mig=1, gpu__0__migs=7)
    for place, (gi, ci) in {0: (1, 0), 3: (5, 0)}.items():
        prefix = f"gpu.0.mig.{place}."
        fields = {"total": 10 * GIB, "free": 9 * GIB, "used": GIB, "processes": place}
        named = {"uuid": f"MIG-{place}", "name": "NVIDIA Test MIG 1g.10gb", "gi": gi, "ci": ci}
        for field, value in {**fields, **named}.items():
            standin.set(prefix + field, value)
    standin.write()
    reading = standin.read()
    first, second, whole = reading["gpus"]
    assert [first["uuid"], second["uuid"], whole["uuid"]] == ["MIG-0", "MIG-3", UUID_1]
    assert first["mig_parent"] == second["mig_parent"] == UUID_0
    assert (second["index"], second["mig_index"]) == (0, 3)
    assert (second["gpu_instance_id"], second["compute_instance_id"]) == (5, 0)
    assert second["memory_total_bytes"] == 10 * GIB
    assert second["process_count"] == 3
    assert second["temperature_celsius"] == 45  # of the card
    assert (second["power_watts"], second["utilization"]) == (None, None)

    # an instance is removed, then MIG is turned off: neither is a loss
    standin.write(gpu__0__mig__3__uuid=None)
    assert [gpu["uuid"] for gpu in standin.read()["gpus"]] == ["MIG-0", UUID_1]
    standin.write(gpu__0__mig=0)
    reading = standin.read()
    assert [gpu["uuid"] for gpu in reading["gpus"]] == [UUID_0, UUID_1]
    assert all(gpu["healthy"] for gpu in reading["gpus"])


def test_a_removed_mig_instance_is_noticed_before_the_layout_is_old(standin: Any) -> None:
    standin.write(gpu__0__mig=1, gpu__0__migs=1, gpu__0__mig__0__uuid="MIG-x")
    standin.set("gpu.0.mig.0.total", GIB)
    standin.write()
    standin.do("new", layout_seconds=1000)
    assert standin.read()["gpus"][0]["uuid"] == "MIG-x"
    standin.set("gpu.0.mig.0.total", None)
    standin.write(gpu__0__mig__0__uuid=None)
    standin.read()
    assert [gpu["uuid"] for gpu in standin.read()["gpus"]] == [UUID_1]


def test_a_gpu_in_mig_mode_that_does_not_answer_is_no_whole_gpu(standin: Any) -> None:
    standin.write(gpu__0__mig=1, gpu__0__migs=1, gpu__0__mig__0__uuid="MIG-x")
    standin.read()
    standin.set("gpu.0.error.nvmlDeviceGetMigMode", 999)
    standin.set("gpu.1.error.nvmlDeviceGetName", 999)
    standin.write()
    first, second = standin.read()["gpus"]
    assert (first["uuid"], first["healthy"]) == ("MIG-x", False)
    assert first["reason"] == "the MIG mode of the GPU cannot be read"
    assert second["name"] == "NVIDIA Test 80GB"  # models are told apart by it


@pytest.mark.parametrize(("code", "words"), [(15, "lost"), (16, "reset")])
def test_a_lost_gpu_is_quarantined_and_comes_back(standin: Any, code: int, words: str) -> None:
    standin.read()
    standin.set("gpu.1.error.*", code)
    standin.write()
    for _ in range(3):
        reading = standin.read()
        first, second = reading["gpus"]
        assert first["healthy"]
        assert first["memory_free_bytes"] == 70 * GIB
        assert not second["healthy"]
        assert words in second["reason"]
        assert second["uuid"] == UUID_1
        assert second["memory_free_bytes"] is None  # an old figure would look like a present one
        assert second["memory_total_bytes"] == 80 * GIB
    standin.set("gpu.1.error.*", None)
    standin.write()
    second = gpu(standin.read(), UUID_1)
    assert second["healthy"]
    assert second["reason"] is None
    assert second["memory_free_bytes"] == 70 * GIB


def test_a_gpu_that_cannot_be_opened_from_the_start_is_told(standin: Any) -> None:
    standin.set("gpu.1.error.*", 15)
    standin.write()
    reading = standin.read()
    assert [gpu["uuid"] for gpu in reading["gpus"]] == [UUID_0]
    assert reading["reason"].startswith("GPU 1: the GPU is lost")


def test_a_gpu_that_is_not_listed_any_more(standin: Any) -> None:
    standin.read()
    standin.write(gpus=1)
    second = gpu(standin.read(), UUID_1)
    assert not second["healthy"]
    assert second["reason"] == "NVML no longer lists this GPU"


@pytest.mark.parametrize(
    ("code", "words"), [(18, "different versions"), (9, "not loaded"), (1, "lost its connection")]
)
def test_a_driver_that_goes_away_quarantines_all(standin: Any, code: int, words: str) -> None:
    standin.read()
    standin.set("error.*", code)
    standin.write()
    for _ in range(2):
        reading = standin.read()
        assert [gpu["healthy"] for gpu in reading["gpus"]] == [False, False]
        assert all(words in gpu["reason"] for gpu in reading["gpus"])
    standin.set("error.*", None)
    standin.write()
    assert [gpu["healthy"] for gpu in standin.read()["gpus"]] == [True, True]


def test_another_user_of_the_process_shuts_nvml_down(standin: Any) -> None:
    standin.read()
    standin.set("xid.0", "1 79")
    standin.write()
    until(lambda: not gpu(standin.read(), UUID_1)["healthy"])
    standin.do("foreign_shutdown")
    assert not gpu(standin.read(), UUID_0)["healthy"]
    reading = standin.read()
    assert gpu(reading, UUID_0)["healthy"]
    # that says nothing about the GPU with the fatal XID
    assert gpu(reading, UUID_1)["reason"] == "XID 79: GPU has fallen off the bus"


@pytest.mark.parametrize(
    ("code", "words"), [(9, "not loaded"), (18, "different versions"), (4, "may not query")]
)
def test_a_driver_that_does_not_start_is_a_reason(standin: Any, code: int, words: str) -> None:
    standin.write(error__nvmlInitWithFlags=code)
    reading = standin.read()
    assert reading["gpus"] == []
    assert words in reading["reason"]


def test_a_driver_without_gpus(make_standin: Callable[[Path], Any], new_driver: Path) -> None:
    standin = make_standin(new_driver)
    assert standin.read()["reason"] == "the NVIDIA driver lists no GPU"


def test_retries_wait_longer_each_time(standin: Any) -> None:
    standin.do("new", retry_seconds=1000.0)
    standin.read()
    standin.set("error.*", 18)
    standin.write()
    assert not standin.read()["gpus"][0]["healthy"]
    standin.set("error.*", None)
    standin.write()
    assert not standin.read()["gpus"][0]["healthy"]  # not tried again yet


def test_slow_figures_are_reused_and_memory_is_not(standin: Any) -> None:
    standin.do("new", slow_seconds=1000.0, layout_seconds=1000.0)
    standin.read()
    standin.write(gpu__0__temp=90, gpu__0__free=GIB)
    first = standin.read()["gpus"][0]
    assert (first["temperature_celsius"], first["memory_free_bytes"]) == (45, GIB)


def test_a_fatal_xid_quarantines_for_good(standin: Any) -> None:
    standin.read()
    assert standin.do("threads") == ["MainThread", "agentic-ray-xid"]
    standin.set("xid.0", "0 79")
    standin.write()
    first = until(lambda: (gpu := standin.read()["gpus"][0])["xid"] and gpu)
    assert (first["xid"], first["healthy"]) == (79, False)
    assert first["reason"] == "XID 79: GPU has fallen off the bus"
    assert gpu(standin.read(), UUID_1)["healthy"]
    standin.set("xid.1", "0 13")  # a later, harmless one does not hide it
    standin.set("xid.2", "1 31")
    standin.write()
    second = until(lambda: (found := gpu(standin.read(), UUID_1))["xid"] and found)
    assert (second["xid"], second["healthy"]) == (31, True)
    assert standin.read()["gpus"][0]["xid"] == 79


def test_an_xid_before_a_reset_is_forgotten_after_it(standin: Any) -> None:
    standin.read()
    standin.set("xid.0", "0 79")
    standin.write()
    until(lambda: not standin.read()["gpus"][0]["healthy"])
    standin.set("gpu.0.error.*", 15)
    standin.write()
    assert "lost" in standin.read()["gpus"][0]["reason"]
    standin.set("gpu.0.error.*", None)
    standin.write()
    first = standin.read()["gpus"][0]
    assert (first["xid"], first["healthy"]) == (None, True)


def test_an_xid_of_one_mig_instance_spares_the_others(standin: Any) -> None:
    standin.write(gpu__0__mig=1, gpu__0__migs=2)
    for place in (0, 1):
        for field, value in {"uuid": f"MIG-{place}", "gi": place + 1, "ci": 0, "total": 1}.items():
            standin.set(f"gpu.0.mig.{place}.{field}", value)
    standin.write()
    standin.read()
    standin.set("xid.0", "0 95 2 0")
    standin.write()
    until(lambda: not gpu(standin.read(), "MIG-1")["healthy"])
    assert gpu(standin.read(), "MIG-0")["healthy"]
    standin.set("xid.1", "0 79")  # of the whole GPU
    standin.write()
    until(lambda: not gpu(standin.read(), "MIG-0")["healthy"])


@pytest.mark.parametrize("function", ["nvmlEventSetCreate", "nvmlDeviceRegisterEvents"])
def test_without_support_for_events_there_is_no_thread(standin: Any, function: str) -> None:
    standin.set(f"error.{function}", 3)
    standin.write()
    assert standin.read()["gpus"][0]["xid"] is None
    assert standin.do("threads") == ["MainThread"]


def test_an_event_wait_that_fails_starts_again(standin: Any) -> None:
    standin.read()
    standin.write(error__nvmlEventSetWait_v2=999)
    until(lambda: "agentic-ray-xid" not in standin.do("threads"))
    standin.write(error__nvmlEventSetWait_v2=None)
    standin.read()
    standin.set("xid.0", "0 48")
    standin.write()
    until(lambda: not standin.read()["gpus"][0]["healthy"])


def test_close_ends_the_thread_and_read_starts_again(standin: Any) -> None:
    standin.read()
    standin.do("close")
    assert standin.do("threads") == ["MainThread"]
    assert standin.read()["gpus"][0]["healthy"]
    standin.do("new", events=False)
    standin.read()
    assert standin.do("threads") == ["MainThread"]


def test_new_ecc_errors_quarantine_and_old_ones_do_not(standin: Any) -> None:
    standin.write(gpu__0__ecc=3)
    assert standin.read()["gpus"][0]["healthy"]
    standin.write(gpu__0__ecc=5)
    first = standin.read()["gpus"][0]
    assert (first["healthy"], first["reason"]) == (False, "2 new uncorrectable ECC errors")
    standin.write(gpu__0__ecc=None)
    assert not standin.read()["gpus"][0]["healthy"]
    standin.write(gpu__0__ecc=0)  # the counter starts again at a reset
    assert standin.read()["gpus"][0]["healthy"]


def test_topology(standin: Any) -> None:
    standin.write(link__0__1__level=10)
    bus_0, bus_1 = standin.state["gpu.0.bus"], standin.state["gpu.1.bus"]
    for link in range(4):
        standin.set(f"gpu.0.nvlink.{link}", bus_1)
        standin.set(f"gpu.1.nvlink.{link}", bus_0)
    standin.write()
    (link,) = standin.read()["links"]
    assert link == {"first": UUID_0, "second": UUID_1, "pcie": "one PCIe switch", "nvlinks": 4}


def test_topology_through_an_nvlink_switch(standin: Any) -> None:
    standin.write(link__0__1__level=50, link__0__1__p2p=0)
    for index, links in ((0, 18), (1, 16)):
        for link in range(links):
            standin.set(f"gpu.{index}.nvlink.{link}", "00000000:C0:00.0")
    standin.write()
    (link,) = standin.read()["links"]
    assert (link["pcie"], link["nvlinks"]) == ("system", 16)


def test_topology_unknown(standin: Any) -> None:
    (link,) = standin.read()["links"]
    assert (link["pcie"], link["nvlinks"]) == (None, None)


FUNCTIONS = [
    "nvmlInitWithFlags",
    "nvmlDeviceGetCount_v2",
    "nvmlDeviceGetHandleByIndex_v2",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetName",
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetTotalEccErrors",
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetNvLinkState",
    "nvmlDeviceGetP2PStatus",
    "*",
]


@pytest.mark.parametrize("seed", range(8))
def test_any_error_anywhere_leaves_a_reading_that_makes_sense(standin: Any, seed: int) -> None:
    random = Random(seed)
    standin.do("new", events=False)
    standin.read()
    for _ in range(25):
        for key in [key for key in standin.state if "error." in key]:
            standin.set(key, None)
        for _ in range(random.randrange(3)):
            prefix = random.choice(("", "gpu.0.", "gpu.1."))
            standin.set(f"{prefix}error.{random.choice(FUNCTIONS)}", random.choice(range(1, 30)))
        standin.write()
        reading = standin.read()
        assert {gpu["uuid"] for gpu in reading["gpus"]} == {UUID_0, UUID_1}
        for state in reading["gpus"]:
            assert state["healthy"] == (state["reason"] is None)
            for figure in FIGURES[1:]:
                assert state["healthy"] or state[figure] is None
    for key in [key for key in standin.state if "error." in key]:
        standin.set(key, None)
    standin.write()
    assert all(gpu["healthy"] for gpu in standin.read()["gpus"])


def test_no_driver_on_this_machine() -> None:
    with NvmlProbe() as probe:
        reading = probe.read()
    if reading.gpus:
        pytest.skip("this machine has a GPU")
    assert reading.reason


def test_without_the_package_that_is_the_reason() -> None:
    code = (
        "import sys; sys.modules['pynvml'] = None\n"
        "from agentic_ray.telemetry.nvml import NvmlProbe\n"
        "reading = NvmlProbe().read()\n"
        "assert reading.gpus == () and 'nvidia-ml-py' in reading.reason, reading"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_of_throttle_reasons() -> None:
    assert throttle_names(0) == ()
    assert throttle_names(0x1 | 0x100 | 0x400) == (
        "gpu_idle",
        "display_clock_setting",
        "unknown_0x400",
    )
