import math
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from studio.training.buckets import (
    Crop,
    CropRules,
    batch_count,
    batches,
    bucket_sizes,
    crop,
    cut,
    nearest_bucket,
    step_for,
)

MODELS = [(128, 32), (512, 64), (768, 64), (1024, 64), (32, 8), (256, 32)]


@pytest.mark.parametrize(
    ("size", "factor", "step"), [(512, 8, 64), (1024, 8, 64), (128, 8, 32), (256, 8, 32), (32, 2, 8), (512, 1, 64)]
)
def test_steps_suit_the_model(size, factor, step):
    assert step_for(size, factor) == step
    assert size % step == 0


def test_the_buckets_of_512_are_those_worked_out_by_hand():
    upright = [(256, 1024), (320, 768), (384, 640), (448, 576)]  # 320: 819 -> 768; 384: 682 -> 640; 448: 585 -> 576
    assert bucket_sizes(512, 64) == (*upright, (512, 512), *((height, width) for width, height in reversed(upright)))


@pytest.mark.parametrize(("size", "step"), MODELS)
def test_buckets_keep_the_area_and_the_grid(size, step):
    found = bucket_sizes(size, step)
    assert (size, size) in found
    assert len(set(found)) == len(found)
    for width, height in found:
        assert width % step == height % step == 0
        assert max(width, height) <= 2 * size
        assert size * size - max(width, height) * step < width * height <= size * size
        assert (height, width) in found


def test_square_leaves_one_bucket():
    assert bucket_sizes(512, 64, square=True) == ((512, 512),)


@pytest.mark.parametrize(("size", "step"), [(500, 64), (32, 64), (0, 64)])
def test_a_size_off_the_grid_is_refused(size, step):
    with pytest.raises(ValueError, match="no multiple"):
        bucket_sizes(size, step)


@pytest.mark.parametrize(
    ("size", "bucket"),
    [
        ((512, 512), (512, 512)),
        ((4000, 3000), (576, 448)),  # ratio 1.33: 1.29 is nearer than 1.67
        ((1920, 1080), (640, 384)),
        ((1080, 1920), (384, 640)),
        ((100, 1000), (256, 1024)),
        ((10_000, 10), (1024, 256)),
    ],
)
def test_a_picture_goes_to_the_bucket_of_its_ratio(size, bucket):
    assert nearest_bucket(size, bucket_sizes(512, 64)) == bucket


def test_of_buckets_equally_near_the_larger_is_taken():
    assert nearest_bucket((100, 100), [(64, 64), (128, 128)]) == (128, 128)
    assert nearest_bucket((100, 100), [(128, 64), (64, 128)]) in [(128, 64), (64, 128)]


def test_a_centred_crop_is_the_one_worked_out_by_hand():
    # 4000 x 3000 covers 576 x 448 at 448/3000: 597 x 448, and 21 columns go, 10 of them on the left.
    assert crop((4000, 3000), (576, 448)) == Crop((576, 448), (597, 448), 10, 0)


@pytest.mark.parametrize("how", ["center", "random"])
def test_a_crop_never_leaves_the_picture_and_keeps_one_side_whole(how):
    chance = np.random.default_rng(0)
    buckets = bucket_sizes(128, 32)
    for index in range(300):
        size = tuple(int(side) for side in chance.integers(1, 3000, 2))
        bucket = nearest_bucket(size, buckets)
        found = crop(size, bucket, CropRules(how), index=index)
        assert 0 <= found.left <= found.scaled[0] - bucket[0]
        assert 0 <= found.top <= found.scaled[1] - bucket[1]
        assert found.scaled[0] == bucket[0] or found.scaled[1] == bucket[1]


def test_random_crops_come_from_as_many_places_as_were_asked_for():
    rules = CropRules("random", variants=3)
    drawn = [crop((3000, 1000), (128, 128), rules, epoch=epoch, index=5) for epoch in range(30)]
    assert len(set(drawn)) == 3
    assert drawn == [crop((3000, 1000), (128, 128), rules, epoch=epoch, index=5) for epoch in range(30)]
    assert drawn[0] != crop((3000, 1000), (128, 128), rules, seed=1, epoch=0, index=5)


def test_about_half_of_the_crops_are_flipped_and_none_without_asking():
    flips = [crop((99, 99), (64, 64), CropRules(flip=True), epoch=epoch).flipped for epoch in range(1000)]
    assert abs(sum(flips) - 500) < 64  # four standard deviations
    assert not any(crop((99, 99), (64, 64), epoch=epoch).flipped for epoch in range(100))


def test_cutting_takes_the_pixels_that_the_crop_names():
    values = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    image = Image.fromarray(values)
    piece = cut(image, Crop((3, 2), (6, 4), left=2, top=1))
    assert np.array_equal(np.asarray(piece), values[1:3, 2:5])
    mirrored = cut(image, Crop((3, 2), (6, 4), left=2, top=1, flipped=True))
    assert np.array_equal(np.asarray(mirrored), values[1:3, 2:5][:, ::-1])


def test_cutting_scales_first():
    image = Image.new("RGB", (300, 200), "red")
    found = crop(image.size, (96, 160))
    assert cut(image, found).size == (96, 160)
    assert found.scaled == (240, 160)


BUCKETS = [(64, 64), (32, 96), (64, 64), (96, 32), (64, 64)]
REPEATS = [3, 1, 2, 5, 1]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 100])
def test_an_epoch_holds_every_example_as_often_as_it_repeats_in_batches_of_one_bucket(batch_size):
    for epoch in range(5):
        found = batches(BUCKETS, REPEATS, batch_size, seed=1, epoch=epoch)
        assert Counter(index for batch in found for index in batch) == dict(enumerate(REPEATS))
        assert all(len({BUCKETS[index] for index in batch}) == 1 for batch in found)
        assert len(found) == batch_count(BUCKETS, REPEATS, batch_size)


def test_the_count_of_batches_is_the_one_worked_out_by_hand():
    # 64 x 64 holds 3 + 2 + 1 = 6, 32 x 96 one, 96 x 32 five: in fours 2 + 1 + 2.
    assert batch_count(BUCKETS, REPEATS, 4) == 5
    assert batch_count([], [], 4) == 0


def test_the_predicted_batches_are_those_of_any_set():
    chance = np.random.default_rng(0)
    sizes = bucket_sizes(128, 32)
    for _ in range(200):
        count = int(chance.integers(1, 40))
        buckets = [sizes[index] for index in chance.integers(0, len(sizes), count)]
        repeats = [int(times) for times in chance.integers(1, 12, count)]
        size = int(chance.integers(1, 9))
        assert len(batches(buckets, repeats, size, seed=count)) == batch_count(buckets, repeats, size)
        assert batch_count(buckets, repeats, size) >= math.ceil(sum(repeats) / size)


def test_epochs_have_orders_of_their_own_and_repeat_with_the_seed():
    orders = {batches(BUCKETS, REPEATS, 2, seed=0, epoch=epoch) for epoch in range(10)}
    assert len(orders) == 10
    assert batches(BUCKETS, REPEATS, 2, seed=3, epoch=4) == batches(BUCKETS, REPEATS, 2, seed=3, epoch=4)
