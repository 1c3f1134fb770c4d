"""What fits where: the arithmetic, with sizes that a person can follow."""

from __future__ import annotations

import pytest

from studio.models.memory import DECODE_BYTES, GB, ROW_BYTES, Work, arrange, gigabytes, part_bytes, refusal

SDXL = {"unet": 5 * GB, "vae": GB // 3, "text_encoder": GB // 4, "text_encoder_2": int(1.3 * GB)}
LARGE = Work(side=1024, rows=4, itemsize=2)
ROW = 1024**2 * 2 * ROW_BYTES
DECODE = 1024**2 * DECODE_BYTES


def test_with_memory_to_spare_everything_stays_on_the_device():
    found = arrange(24 * GB, SDXL, LARGE)
    assert (found.offload, found.tiled, found.rows, found.fits) == (False, False, 4, True)
    assert found.needs == sum(SDXL.values()) + max(4 * ROW, DECODE)


def test_when_only_decoding_is_too_large_pictures_are_decoded_in_tiles():
    found = arrange(sum(SDXL.values()) + 4 * ROW, SDXL, LARGE)
    assert (found.offload, found.tiled, found.rows) == (False, True, 4)


def test_when_the_rows_are_too_many_fewer_go_at_a_time_before_anything_is_moved():
    found = arrange(sum(SDXL.values()) + 3 * ROW, SDXL, LARGE)
    assert (found.offload, found.tiled, found.rows) == (False, True, 3)


def test_parts_are_moved_one_by_one_when_they_do_not_fit_together():
    found = arrange(5 * GB + 4 * ROW, SDXL, Work(512, 4, 2))
    assert (found.offload, found.tiled, found.rows, found.fits) == (True, False, 4, True)


def test_what_fits_in_no_way_gets_the_smallest_way_and_says_so():
    found = arrange(4 * GB, SDXL, LARGE)
    assert (found.offload, found.tiled, found.rows, found.fits) == (True, True, 1, False)
    assert found.needs == 5 * GB + ROW


def test_never_and_always_are_obeyed_whatever_is_free():
    assert not arrange(GB, SDXL, LARGE, "never").offload
    assert arrange(100 * GB, SDXL, LARGE, "always").offload


@pytest.mark.parametrize("free", [size * GB // 2 for size in range(1, 50)])
def test_more_memory_is_never_used_for_something_slower(free):
    """Off the device is slower than fewer rows, those are slower than tiles, and what is said to fit fits."""

    def slowness(found):
        return (found.offload, -found.rows, found.tiled)

    less, more = arrange(free, SDXL, LARGE), arrange(free + GB // 2, SDXL, LARGE)
    assert not (less.fits and more.fits) or slowness(more) <= slowness(less)
    assert less.fits == (less.needs <= free)


def test_a_small_picture_has_nothing_to_cut_into_tiles():
    assert not arrange(GB, SDXL, Work(512, 1, 2)).tiled


def test_a_model_without_an_autoencoder_needs_nothing_to_decode():
    assert arrange(10 * GB, {"transformer": GB}, Work(1024, 1, 2)).needs == GB + ROW


def test_the_bytes_of_a_part_are_those_of_the_dtype_it_is_loaded_in():
    header = {
        "unet.a": {"dtype": "F16", "shape": [3, 4], "data_offsets": [0, 24]},
        "unet.b": {"dtype": "F16", "shape": [], "data_offsets": [24, 26]},
        "vae.c": {"dtype": "F32", "shape": [7], "data_offsets": [26, 54]},
    }
    assert part_bytes(header, 4, "unet.") == 52
    assert part_bytes(header, 2) == 40


@pytest.mark.parametrize(
    ("free", "host", "offload", "says"),
    [
        (16, 16, "auto", None),
        (6, 16, "auto", None),
        (6, 16, "never", "xl needs 6.9 GB of memory and 6.0 GB is free: choose --offload auto."),
        (7, 5, "always", "xl needs 6.9 GB of memory and 5.0 GB is free: choose --offload auto."),
        (6, 5, "auto", "xl needs 6.9 GB of memory and 5.0 GB is free: close other programs"),
        (4, 16, "auto", "xl's largest part needs 5.0 GB of memory and 4.0 GB is free: close other programs"),
        (6, 0, "never", "xl needs 6.9 GB of memory and 6.0 GB is free: close other programs"),
    ],
)
def test_a_model_larger_than_memory_is_refused_with_its_size_what_is_free_and_the_fix(free, host, offload, says):
    found = refusal("xl", SDXL, free * GB, host * GB, offload)
    assert found is None if says is None else found.startswith(says)


def test_sizes_are_said_in_the_unit_that_fits():
    assert [gigabytes(size) for size in (13 * GB, GB // 10, 3 * 1024**2)] == ["13.0 GB", "0.1 GB", "3 MB"]
