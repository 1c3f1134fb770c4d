import base64
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from studio.errors import RecipeError
from studio.imaging import grid, jpeg_data_uri, read_recipe, to_picture, to_tensor, write_png

REQUEST = {"prompts": ["a fox", "größe, 狐"], "views": ["identity", "rotate_180"], "steps": 30, "seed": 7}
RECIPE = {"engine": "illusion", "request": REQUEST, "seed": 9}


def png_with(path, **chunks):
    text = PngImagePlugin.PngInfo()
    for name, value in chunks.items():
        text.add_text(name, value)
    Image.new("RGB", (4, 4)).save(path, pnginfo=text)
    return path


def noise(width, height):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_tensor_values_become_the_bytes_one_computes_by_hand():
    pixels = torch.tensor([-1.0, 0.0, 1.0, 5.0]).view(1, 2, 2).repeat(3, 1, 1)
    assert np.array(to_picture(pixels))[..., 0].tolist() == [[0, 128], [255, 255]]


def test_one_channel_is_a_gray_picture():
    assert to_picture(torch.zeros(1, 2, 3)).mode == "L"
    assert to_picture(torch.zeros(1, 2, 3)).size == (3, 2)


def test_picture_to_tensor_and_back_is_exact():
    picture = noise(5, 7)
    tensor = to_tensor(picture)
    assert (tensor.shape, tensor.dtype) == ((3, 7, 5), torch.float32)
    assert np.array_equal(np.array(to_picture(tensor)), np.array(picture))


def test_a_grid_is_filled_row_by_row():
    cells = [Image.new("RGB", (10, 6), colour) for colour in ("red", "lime", "blue")]
    sheet = grid(cells, gap=2)
    assert sheet.size == (22, 14)
    assert [sheet.getpixel(at) for at in ((0, 0), (12, 0), (0, 8), (12, 8), (10, 0))] == [
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
        (255, 255, 255),
        (255, 255, 255),
    ]


def test_columns_of_a_grid_can_be_chosen():
    assert grid([noise(4, 4)] * 5, columns=5, gap=0).size == (20, 4)


@pytest.mark.parametrize("size", [(256, 256), (1024, 512), (3, 900), (1, 1)])
def test_a_preview_is_small_however_rich_the_picture(size):
    uri = jpeg_data_uri(noise(*size))
    assert len(uri) <= 15 * 1024
    kind, _, data = uri.partition(",")
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    assert kind == "data:image/jpeg;base64"
    assert max(picture.size) <= 256


def test_a_preview_gives_up_quality_first_and_size_last():
    assert Image.open(io.BytesIO(base64.b64decode(jpeg_data_uri(noise(256, 256)).partition(",")[2]))).width > 128
    assert len(jpeg_data_uri(noise(256, 256), max_chars=2000)) <= 2000


def test_a_png_gives_its_recipe_back(tmp_path):
    write_png(noise(8, 8), tmp_path / "a.png", RECIPE)
    assert read_recipe(tmp_path / "a.png") == {"version": 1, **RECIPE}


def test_the_recipe_is_also_there_in_the_wide_spread_notation(tmp_path):
    write_png(noise(8, 6), tmp_path / "a.png", RECIPE)
    lines = Image.open(tmp_path / "a.png").info["parameters"].split("\n")
    assert lines == [
        "a fox | größe, 狐",
        "Negative prompt: ",
        "Steps: 30, Seed: 9, Size: 8x6, Views: identity; rotate_180",
    ]


def test_pairs_that_hold_marks_are_quoted(tmp_path):
    request = {**REQUEST, "model": "builtin:emoji"}
    write_png(noise(8, 6), tmp_path / "a.png", {**RECIPE, "request": request})
    assert 'Model: "builtin:emoji"' in Image.open(tmp_path / "a.png").info["parameters"]


def test_saving_a_picture_keeps_its_pixels(tmp_path):
    write_png(noise(8, 8), tmp_path / "a.png", RECIPE)
    assert np.array_equal(np.array(Image.open(tmp_path / "a.png")), np.array(noise(8, 8)))


def test_a_truncated_png_still_gives_its_recipe(tmp_path):
    write_png(noise(64, 64), tmp_path / "a.png", RECIPE)
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[:-3000])
    assert read_recipe(tmp_path / "a.png")["seed"] == 9


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "damaged"),
        ("[" * 50_000, "damaged"),
        ("[]", "version"),
        (json.dumps({"version": 2, "engine": "illusion", "request": {}}), "version"),
        (json.dumps({"version": 1, "engine": 3, "request": {}}), "names no engine"),
        (json.dumps({"version": 1, "engine": "illusion", "request": []}), "no request"),
        (json.dumps({"version": 1, "pad": "x" * 70_000}), "longer than 64 KB"),
    ],
)
def test_a_recipe_that_cannot_be_ours_is_refused(tmp_path, text, says):
    with pytest.raises(RecipeError, match=says):
        read_recipe(png_with(tmp_path / "a.png", duckrabbit=text))


def test_a_png_without_a_recipe_says_so(tmp_path):
    with pytest.raises(RecipeError, match="holds no recipe"):
        read_recipe(png_with(tmp_path / "a.png", parameters="Steps: 3"))


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"])
def test_what_is_no_png_is_refused(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(RecipeError, match=r"PNG"):
        read_recipe(tmp_path / "a.png")


def test_a_text_chunk_that_unpacks_to_megabytes_is_refused(tmp_path):
    text = PngImagePlugin.PngInfo()
    text.add_text("duckrabbit", "x" * 80_000_000, zip=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png", pnginfo=text)
    with pytest.raises(RecipeError):
        read_recipe(tmp_path / "a.png")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(RecipeError):
        read_recipe(tmp_path / "none.png")
