"""What the machine has, and how fast it is: the sources are read rightly, the measurements are possible."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import pytest
import torch

from gptoss_lab import machine

MEMINFO = """MemTotal:       24684096 kB
MemFree:         1000000 kB
MemAvailable:   20000000 kB
Buffers:           10000 kB
"""
VM_STAT = """Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                               10000.
Pages active:                            400000.
Pages inactive:                          300000.
Pages speculative:                         5000.
Pages wired down:                        200000.
"""


def test_linux_tells_total_and_available_memory():
    assert machine.linux_memory(MEMINFO) == (24684096 * 1024, 20000000 * 1024)


def test_macos_counts_the_pages_that_can_be_had():
    assert machine.mac_free(VM_STAT) == 16384 * 315000


def group(folder: Path, limit: str, used: int, file: int, names: tuple[str, str]) -> None:
    folder.mkdir(parents=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\nactive_file {file}\ninactive_file 1\n")


def test_the_tightest_control_group_around_a_process_counts(tmp_path):
    names = machine.CGROUP_FILES[""]
    group(tmp_path / "user", "9000", 800, 100, names)
    group(tmp_path / "user" / "job", "max", 700, 100, names)
    group(tmp_path / "user" / "job" / "step", "6000", 600, 99, names)
    assert machine.control_groups("0::/user/job/step\n", tmp_path) == [(6000, 500), (9000, 699)]
    assert machine.control_groups("0::/user/job\n", tmp_path) == [(9000, 699)]


def test_the_older_kind_of_control_group_is_understood(tmp_path):
    group(tmp_path / "memory" / "job", "5000", 300, 99, machine.CGROUP_FILES["memory"])
    assert machine.control_groups("4:memory:/job\n3:cpuset:/\n0::/\n", tmp_path) == [(5000, 200)]


@pytest.mark.parametrize("limit", [10**9, 10**15])
def test_a_limit_counts_where_it_is_below_what_is_built_in(tmp_path, monkeypatch, limit):
    if sys.platform != "linux":
        pytest.skip("asks Linux")
    group(tmp_path / "job", str(limit), 400, 99, machine.CGROUP_FILES[""])
    monkeypatch.setattr(machine, "control_groups", lambda said, root: [(limit, 300)])
    there = machine.memory()
    assert there.limited == (limit == 10**9)
    assert there.limited == (there.total == 10**9) and 0 < there.free <= there.total


def test_memory_that_nobody_tells_is_none(monkeypatch):
    monkeypatch.setattr(platform, "system", lambda: "Plan9")
    assert machine.memory() is None


def test_the_processor_and_its_cores_are_told():
    found = machine.processor()
    assert found.name and 1 <= found.cores <= (os.cpu_count() or 1)
    assert set(found.instructions) <= set(machine.INSTRUCTIONS)
    capable = torch.backends.cpu.get_cpu_capability()
    assert ("AVX2" in found.instructions) == (capable in ("AVX2", "AVX512"))


def test_peak_memory_is_what_was_held_in_bytes():
    if sys.platform == "win32":
        pytest.skip("not told there")
    held = torch.ones(50_000_000)
    assert held.nbytes < machine.peak_memory() < 100e9


def test_bandwidth_counts_bytes_and_products_count_two_flop_each(monkeypatch):
    monkeypatch.setattr(machine, "median_time", lambda one, seconds: (one(), 0.5)[1])
    assert machine.bandwidth(size=8_000_000) == 16_000_000
    assert machine.product_rate() == 4 * machine.ROWS * machine.WIDTH**2


def test_what_is_measured_is_a_plausible_speed():
    assert 1e8 < machine.bandwidth(0.01, 64_000_000) < 1e13
    assert 1e8 < machine.product_rate(0.01) < 1e14


def test_the_median_of_a_call_leaves_out_the_one_that_warms_up(monkeypatch):
    clock = iter([0, 1, 10, 13, 20, 22, 30])
    monkeypatch.setattr(machine.time, "perf_counter", lambda: next(clock))
    calls = []
    assert machine.median_time(lambda: calls.append(1), 5) == 2
    assert len(calls) == 4
