from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from studio.devices import (
    PeakMemory,
    _kilobytes,
    _left_in_container,
    autoencoder_dtype,
    free_memory,
    is_out_of_memory,
    memory_budget,
    pick_device,
    pick_dtype,
    total_memory,
    with_less,
)
from studio.errors import RequestError

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))
MB = 1024**2


@pytest.mark.parametrize(
    ("device", "native", "name", "found"),
    [
        (CPU, False, "auto", torch.float32),
        (CPU, False, "bfloat16", torch.bfloat16),
        (CPU, False, "float16", torch.float16),
        (MPS, False, "auto", torch.float16),
        (CUDA, True, "auto", torch.bfloat16),
        (CUDA, False, "auto", torch.float16),
        (CUDA, True, "float32", torch.float32),
    ],
)
def test_each_device_has_its_dtype_and_a_name_overrides_it(device, native, name, found, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    assert pick_dtype(device, name) == found


@pytest.mark.parametrize("name", ["cpu:x", "cpu:", "cpu:1", "cpux", "", "cuda:99", "meta", "cpu:0:0"])
def test_a_device_that_is_not_there_is_named_with_those_that_are(name):
    with pytest.raises(RequestError, match=f"device: there is no {name!r} on this machine; choose auto, .*cpu"):
        pick_device(name)


def test_a_device_may_be_named_by_its_number():
    assert pick_device("cpu:0").type == pick_device("cpu").type == "cpu"


def test_bfloat16_on_a_gpu_that_only_emulates_it_is_refused_with_the_fix(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    with pytest.raises(RequestError, match="choose float16"):
        pick_dtype(CUDA, "bfloat16")


def test_a_dtype_that_is_in_no_table_is_named_with_those_that_are():
    with pytest.raises(RequestError, match="'int8'; choose auto, float32, bfloat16, float16"):
        pick_dtype(CPU, "int8")


def test_the_autoencoder_stays_in_float32_unless_its_maker_says_that_it_stands_halves():
    assert autoencoder_dtype(torch.float16) == torch.float32
    assert autoencoder_dtype(torch.float16, force_upcast=False) == torch.float16


def test_free_memory_is_some_of_all_and_the_budget_is_half_unless_it_is_given():
    assert 0 < free_memory(CPU) < total_memory(CPU)
    assert memory_budget(CPU, None) == total_memory(CPU) // 2
    assert memory_budget(CPU, 1.5) == 1536 * MB


def test_a_container_leaves_what_its_limit_leaves_and_file_pages_count_as_free(tmp_path):
    (tmp_path / "memory.max").write_text(str(100 * MB))
    (tmp_path / "memory.current").write_text(str(70 * MB))
    (tmp_path / "memory.stat").write_text(f"anon {50 * MB}\ninactive_file {20 * MB}\n")
    assert _left_in_container(tmp_path) == 50 * MB
    (tmp_path / "memory.max").write_text("max")
    assert _left_in_container(tmp_path) == sys.maxsize
    assert _left_in_container(tmp_path / "none") == sys.maxsize


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says what a process holds now")
def test_the_peak_counts_what_was_held_and_given_back_since_it_was_made():
    peak = PeakMemory(CPU)
    before = peak.bytes
    gap = max(0, before - _said("VmRSS"))  # to an older, higher peak, where the counter could not be set back
    held = torch.ones((gap + 128 * MB) // 4)
    assert held.sum() > 0
    del held
    assert 120 * MB < peak.bytes - before < 160 * MB


def test_the_peak_leaves_out_what_was_given_back_before_it_was_made():
    if not _a_process_may_forget_its_peak():
        pytest.skip("this machine does not let a process set its counter back")
    _hold_for_a_moment(256 * MB)
    before = _said("VmHWM")
    assert PeakMemory(CPU).bytes < before - 200 * MB


def _a_process_may_forget_its_peak():
    _hold_for_a_moment(256 * MB)
    before = _said("VmHWM")
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return _said("VmHWM") < before  # some sandboxes take the word and do nothing


def _hold_for_a_moment(size):
    """Touch ``size`` bytes more than this process ever held, and give them back."""
    assert torch.ones((size + max(0, _said("VmHWM") - _said("VmRSS"))) // 4).sum() > 0


def _said(name):
    """A number of bytes that Linux tells of this process; 0 elsewhere."""
    return (_kilobytes("/proc/self/status", name) or 0) * 1024


def test_running_out_of_memory_is_told_from_other_errors_on_every_device():
    cpu = RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory: you tried ...")
    mps = RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)")
    assert all(is_out_of_memory(error) for error in (cpu, mps, MemoryError(), torch.OutOfMemoryError("CUDA ...")))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_the_cpu_allocator_itself_says_so():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 55, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_work_is_tried_with_less_until_it_fits():
    asked = []

    def work():
        asked.append(sizes[-1])
        if sizes[-1] > 3:
            raise torch.OutOfMemoryError("pretend")
        return "done"

    def lessen():
        sizes.append(sizes[-1] // 2)
        return True

    sizes = [12]
    assert with_less(work, lessen, CPU) == "done"
    assert asked == [12, 6, 3]


def test_when_it_can_do_with_no_less_the_error_comes_out_and_others_at_once():
    def fails(error):
        raise error

    with pytest.raises(torch.OutOfMemoryError, match="first"):
        with_less(lambda: fails(torch.OutOfMemoryError("first")), lambda: False, CPU)
    with pytest.raises(RuntimeError, match="shapes"):
        with_less(lambda: fails(RuntimeError("shapes")), lambda: pytest.fail("asked for less"), CPU)
