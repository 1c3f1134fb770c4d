"""Every kind of picture that people have, made here and read back."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from studio.training.dataset import Limits, read_dataset
from studio.training.pictures import PictureError, decode, load
from tests.training.sets import encoded, picture, write_set

SMALL = Limits(min_side=1)
TWO = Image.fromarray(np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8))  # red, blue


def read(data, limits=SMALL):
    shown, changes = decode(data, limits)
    assert shown.mode == "RGB"
    return np.asarray(shown).tolist(), changes


def test_a_plain_picture_is_as_it_was_and_nothing_is_said():
    assert read(encoded(TWO)) == ([[[255, 0, 0], [0, 0, 255]]], ())


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_lossless_formats_give_the_same_pixels(kind):
    assert read(encoded(TWO, kind, **({"lossless": True} if kind == "WEBP" else {})))[0] == [[[255, 0, 0], [0, 0, 255]]]


@pytest.mark.parametrize("kind", ["JPEG", "AVIF"])
def test_lossy_formats_give_nearly_the_same_pixels(kind):
    image = picture(3)
    shown, changes = decode(encoded(image, kind, quality=95))
    assert np.abs(np.asarray(shown, int) - np.asarray(image, int)).mean() < 4
    assert changes == ()


def test_the_content_counts_and_not_the_name(tmp_path):
    write_set(tmp_path, {"a.jpg": encoded(picture(1), "PNG"), "b.png": encoded(picture(2), "WEBP")})
    assert len(read_dataset(tmp_path).examples) == 2


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_grey_and_palette_pictures_become_rgb(mode):
    image = Image.fromarray(np.array([[0, 255]], np.uint8)).convert(mode)
    assert read(encoded(image)) == ([[[0, 0, 0], [255, 255, 255]]], ())


def test_transparent_parts_become_white_and_half_transparent_ones_half_white():
    image = Image.new("RGBA", (3, 1))
    image.putdata([(255, 0, 0, 255), (0, 0, 0, 0), (0, 0, 0, 127)])
    pixels, changes = read(encoded(image))
    assert pixels == [[[255, 0, 0], [255, 255, 255], [128, 128, 128]]]
    assert changes == ("its transparent parts become white",)


@pytest.mark.parametrize("mode", ["LA", "P"])
def test_alpha_is_seen_in_grey_and_palette_pictures(mode):
    image = Image.new("RGBA", (2, 1))
    image.putdata([(0, 0, 0, 255), (0, 0, 0, 0)])
    data = encoded(image.convert("LA")) if mode == "LA" else encoded(image.quantize(4))
    assert read(data) == ([[[0, 0, 0], [255, 255, 255]]], ("its transparent parts become white",))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_become_eight_by_rounding_and_not_by_clipping(kind):
    image = Image.fromarray(np.array([[0, 257, 32768, 65535]], np.uint16))
    pixels, changes = read(encoded(image, kind))
    assert pixels == [[[value] * 3 for value in (0, 1, 128, 255)]]
    assert changes == ("its 16 bits become 8",)


def test_sixteen_bits_of_three_channels_become_eight(tmp_path):
    rows = b"\0" + struct.pack(">6H", 65535, 0, 32768, 0, 65535, 257)
    pixels, _ = read(raw_png(2, 1, bits=16, colour=2, rows=rows))
    assert pixels == [[[255, 0, 128], [0, 255, 1]]]


def raw_png(width, height, *, bits, colour, rows):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">2I5B", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_pixels_of_floats_or_32_bits_are_refused():
    for image in (Image.new("F", (2, 2), 0.5), Image.new("I", (2, 2), 70000)):
        with pytest.raises(PictureError, match="left out") as caught:
            decode(encoded(image, "TIFF"), SMALL)
        assert caught.value.kind == "format"


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb_and_is_not_inverted(kind):
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))  # red
    pixels, changes = read(encoded(image, kind))
    assert pixels[0][0][0] > 240
    assert max(pixels[0][0][1:]) < 15
    assert changes == ("its CMYK colours become RGB",)


def test_a_colour_profile_is_applied_and_named():
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert read(encoded(TWO, icc_profile=lab))[1] == ()  # does not fit an RGB picture
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert read(encoded(TWO, icc_profile=srgb)) == ([[[255, 0, 0], [0, 0, 255]]], ())
    grey = Image.new("RGB", (1, 1), (100, 100, 100))
    pixels, changes = read(encoded(grey, icc_profile=linear_profile()))
    assert pixels == [[[168, 168, 168]]]  # 255 * (1.055 * (100 / 255) ** (1 / 2.4) - 0.055)
    assert changes == ("its colours (linear light) become sRGB",)


def test_a_damaged_profile_is_ignored():
    assert read(encoded(TWO, icc_profile=b"no profile")) == ([[[255, 0, 0], [0, 0, 255]]], ())


def linear_profile():
    """An ICC profile with sRGB's primaries and a gamma of 1, written by hand after the ICC's specification 4.3."""

    def fixed(*values):
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    tags = {b"desc": b"desc" + bytes(4) + struct.pack(">I", 13) + b"linear light\0" + bytes(78)}
    tags[b"wtpt"] = b"XYZ " + bytes(4) + fixed(0.9642, 1.0, 0.8249)
    primaries = {
        b"rXYZ": (0.4361, 0.2225, 0.0139),
        b"gXYZ": (0.3851, 0.7169, 0.0971),
        b"bXYZ": (0.1431, 0.0606, 0.7141),
    }
    tags |= {name: b"XYZ " + bytes(4) + fixed(*value) for name, value in primaries.items()}
    tags |= {name: b"curv" + bytes(8) for name in (b"rTRC", b"gTRC", b"bTRC")}  # no entries: the identity
    table, body, start = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">2I", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I", start + len(body)) + bytes(4) + struct.pack(">I", 0x02400000) + b"mntrRGB XYZ "
    head += bytes(12) + b"acsp" + bytes(28) + fixed(0.9642, 1.0, 0.8249)
    return head + bytes(128 - len(head)) + table + body


@pytest.mark.parametrize(
    ("orientation", "rows"),
    [(3, "BR"), (6, "R/B"), (8, "B/R"), (1, "RB")],
)
def test_a_turned_picture_is_turned_upright(orientation, rows):
    exif = Image.Exif()
    exif[0x0112] = orientation
    named = {"R": [255, 0, 0], "B": [0, 0, 255]}
    pixels, changes = read(encoded(TWO, exif=exif))
    assert pixels == [[named[mark] for mark in row] for row in rows.split("/")]
    assert changes == (() if orientation == 1 else ("it is turned upright as its EXIF data says",))


@pytest.mark.parametrize(
    ("kind", "word"), [("GIF", "frames"), ("WEBP", "frames"), ("PNG", "frames"), ("TIFF", "pages")]
)
def test_of_several_frames_the_first_is_used_and_that_is_said(kind, word):
    frames = [picture(seed) for seed in (1, 2, 3)]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    shown, changes = decode(data)
    assert changes == (f"of its 3 {word} only the first is used",)
    error = np.abs(np.asarray(shown, int) - np.asarray(frames[0], int)).mean()
    assert error < 12  # GIF's palette and WebP's loss; the others differ by 60 and more


def test_a_phones_second_picture_is_not_spoken_of():
    data = encoded(picture(1), "MPO", save_all=True, append_images=[picture(2)])
    assert decode(data)[1] == ()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "AVIF", "BMP"])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.9])
def test_a_truncated_picture_is_refused_in_words(kind, share):
    data = encoded(picture(1), kind)
    with pytest.raises(PictureError, match="left out"):
        decode(data[: int(len(data) * share)])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "AVIF", "BMP"])
def test_a_damaged_picture_is_refused_or_read_but_never_a_crash(kind):
    data = encoded(picture(1), kind)
    chance = np.random.default_rng(0)
    said = []
    for _ in range(60):
        broken = bytearray(data)
        for place in chance.integers(0, len(data), 6):
            broken[place] = chance.integers(0, 256)
        with contextlib.suppress(PictureError):
            said.append(decode(bytes(broken))[0].mode)
    assert set(said) <= {"RGB"}


def test_too_many_pixels_are_refused_before_they_are_decoded():
    data = raw_png(60_000, 60_000, bits=8, colour=2, rows=b"")
    with pytest.raises(PictureError, match="shrink it") as caught:
        decode(data)
    assert caught.value.kind == "too_large"
    with pytest.raises(PictureError, match="101 x 100 pixels"):
        decode(encoded(picture(1, (101, 100))), Limits(max_pixels=10_000))
    decode(encoded(picture(1, (100, 100))), Limits(max_pixels=10_000))


def test_a_picture_of_another_kind_is_refused():
    buffer = io.BytesIO()
    picture(1).save(buffer, "PPM")
    with pytest.raises(PictureError, match="no picture that can be read"):
        decode(buffer.getvalue())


def test_loading_an_example_gives_what_was_read_and_notices_a_change(tmp_path):
    write_set(tmp_path, {"a.png": 1, "b.png": 2})
    first, second = read_dataset(tmp_path).examples
    assert load(first).tobytes() == picture(1).tobytes()
    (tmp_path / "a.png").write_bytes(encoded(picture(3)))
    with pytest.raises(PictureError, match="a.png has changed"):
        load(first)
    (tmp_path / "b.png").unlink()
    with pytest.raises(PictureError, match="b.png cannot be read any more"):
        load(second)
