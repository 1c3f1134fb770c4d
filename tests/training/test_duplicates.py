import io
import time

import numpy as np
import pytest
from PIL import Image, ImageDraw

from studio.training.duplicates import Print, print_of, twins
from tests.training.sets import encoded, picture


def again(image, kind, **settings):
    return Image.open(io.BytesIO(encoded(image, kind, **settings))).convert("RGB")


def drawing(ground, shape):
    image = Image.new("RGB", (96, 96), ground)
    ImageDraw.Draw(image).ellipse(shape, "black")
    return image


FOX = picture(1, (200, 150))


@pytest.mark.parametrize(
    "other",
    [
        again(FOX, "JPEG", quality=40),
        again(FOX, "WEBP", quality=40),
        FOX.resize((100, 75)),
        FOX.resize((400, 300), Image.Resampling.NEAREST),
        FOX.point(lambda value: min(255, value + 4)),
    ],
)
def test_a_copy_in_another_format_size_or_light_is_alike(other):
    assert twins([print_of(FOX), print_of(other)]) == [None, 0]


def test_other_pictures_are_not():
    assert twins([print_of(picture(seed)) for seed in range(50)]) == [None] * 50


def test_one_drawing_on_two_grounds_and_two_drawings_on_one_are_not_alike():
    shapes = [(10, 10, 50, 50), (40, 40, 90, 90)]
    prints = [print_of(drawing(ground, shape)) for ground in ("red", "white") for shape in shapes]
    assert twins(prints) == [None] * 4


def test_plain_grounds_are_alike_only_when_their_colours_are():
    prints = [print_of(Image.new("RGB", (50, 50), colour)) for colour in ("#808080", "#828282", "#a0a0a0")]
    assert twins(prints) == [None, 0, None]


def test_noise_on_a_plain_ground_does_not_hide_a_copy():
    image = drawing("white", (30, 30, 60, 60))
    assert twins([print_of(image), print_of(again(image, "JPEG", quality=30))]) == [None, 0]


def test_the_hash_of_steps_is_known_by_hand():
    """Brightness rises from cell to cell to the right: all across bits are set, none of the bits down."""
    ramp = Image.fromarray(np.tile(np.repeat(np.arange(9, dtype=np.uint8) * 20, 8), (72, 1)))
    assert print_of(ramp).bits == b"\xff" * 8 + b"\x00" * 8


def test_no_pictures_have_no_twins():
    assert twins([]) == []


def test_ten_thousand_pictures_are_compared_in_seconds():
    chance = np.random.default_rng(0)
    thumbnail = bytes(768)
    prints = [Print(chance.integers(0, 256, 16).astype(np.uint8).tobytes(), thumbnail) for _ in range(10_000)]
    start = time.process_time()
    assert twins(prints) == [None] * 10_000
    assert time.process_time() - start < 10
