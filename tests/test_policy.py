import struct
import zlib

import pytest
from PIL import Image

from studio.errors import PolicyError
from studio.illusions.request import IllusionRequest
from studio.policy import LOCAL, SHARED, Limits, check_illusion, check_upload, limits_for
from studio.settings import Settings

MODELS = ("builtin:emoji", "my-model")


def refusal(request, limits=SHARED, models=MODELS):
    with pytest.raises(PolicyError) as refused:
        check_illusion(request, limits, models)
    return refused.value


def claimed_size_png(path, width, height):
    """A PNG whose header claims a size that its few bytes do not hold."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [header, b"IDAT" + zlib.compress(b""), b"IEND"]
    body = b"".join(struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def test_the_profile_decides_the_limits():
    assert limits_for(Settings()) is LOCAL
    assert limits_for(Settings(profile="shared")) is SHARED


def test_the_default_request_is_allowed_everywhere():
    check_illusion(IllusionRequest(), LOCAL, MODELS)
    check_illusion(IllusionRequest(), SHARED, MODELS)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"steps": 101, "candidates": 1}, "steps: at most 100 are allowed here, got 101."),
        ({"size": 1032}, "size: at most 1,024 are allowed here, got 1,032."),
        ({"candidates": 5}, "candidates: at most 4 are allowed here, got 5."),
    ],
)
def test_each_limit_names_its_field(values, sentence):
    error = refusal(IllusionRequest(**values))
    assert str(error) == sentence
    assert error.field == sentence.partition(":")[0]


def test_doubling_a_size_that_only_the_model_knows_is_left_to_models_that_are_small():
    assert refusal(IllusionRequest(model="my-model", upscale=2)).field == "upscale"
    check_illusion(IllusionRequest(model="my-model", upscale=2, size=512), SHARED, MODELS)
    check_illusion(IllusionRequest(model="builtin:emoji", upscale=2), SHARED, MODELS)
    check_illusion(IllusionRequest(model="my-model", upscale=2), LOCAL, MODELS)


def test_prompts_have_a_length():
    error = refusal(IllusionRequest(prompts=("a", "b" * 400)), Limits(max_prompt=300))
    assert str(error) == "prompts.1: at most 300 characters are allowed here, got 400; shorten it."


def test_steps_times_candidates_times_views_have_a_limit():
    request = IllusionRequest(prompts=("a",) * 4, views=("identity",) * 4, steps=100, candidates=4)
    assert "are up to 3,200 evaluations, and at most 2,000" in str(refusal(request))


def test_time_travel_counts_where_views_act_on_pictures():
    full = {"prompts": ("a",) * 4, "steps": 50, "candidates": 4}
    check_illusion(IllusionRequest(views=("identity",) * 4, **full), SHARED, MODELS)
    for request in (
        IllusionRequest(views=("identity",) * 4, space="picture", **full),
        IllusionRequest(views=("identity",) * 3 + ("negate",), **full),
    ):
        assert "4 views x 80 steps x 4 candidates are up to 2,560 evaluations" in str(refusal(request))


def test_every_partner_counts_as_a_picture_of_its_own():
    request = IllusionRequest(partners=("an owl", "a bear"), candidates=4, steps=10)
    assert "4 candidates for each of 3 prompts are 12 pictures, and at most 8" in str(refusal(request))
    check_illusion(request, LOCAL, MODELS)
    request = IllusionRequest(partners=("an owl",), candidates=4, steps=100)
    assert "2 views x 100 steps x 8 candidates are up to 3,200 evaluations" in str(refusal(request))


def test_partners_are_held_to_the_length_of_prompts():
    assert refusal(IllusionRequest(partners=("b" * 400,)), Limits(max_prompt=300)).field == "partners.0"


def test_upscaling_counts_with_its_size_and_its_steps():
    assert "upscale: pictures of at most 1,024" in str(refusal(IllusionRequest(size=1024, upscale=2)))
    request = IllusionRequest(upscale=2, upscale_strength=0.5, steps=100, candidates=2)
    assert "2 candidates drawn at two sizes are up to 2,400 evaluations" in str(refusal(request))


def test_a_shared_studio_reads_with_its_own_scorer_only():
    assert refusal(IllusionRequest(scorer="/somewhere/clip")).field == "scorer"
    check_illusion(IllusionRequest(scorer="/somewhere/clip"), LOCAL, MODELS)


def test_all_problems_are_listed_at_once():
    error = refusal(IllusionRequest(steps=200, size=2048))
    assert error.field == "steps"
    assert "size: at most 1,024" in str(error)


@pytest.mark.parametrize("model", ["../../etc", "/etc", "~/models/x", "C:\\x", "owner/name", "my-model/../../x"])
def test_a_shared_studio_offers_listed_models_only(model):
    error = refusal(IllusionRequest(model=model))
    assert error.field == "model"
    assert "this studio does not offer" in str(error)


def test_a_mistyped_model_gets_the_nearest_name():
    assert "did you mean 'builtin:emoji'" in str(refusal(IllusionRequest(model="builtin:emojis")))


def test_a_local_studio_takes_any_folder_or_hub_id():
    check_illusion(IllusionRequest(model="/somewhere/else"), LOCAL, MODELS)


@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
def test_an_ordinary_upload_gives_its_size(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    Image.new("RGB", (30, 20)).save(path)
    assert check_upload(path, SHARED) == (30, 20)


@pytest.mark.parametrize("side", [5_000, 12_000, 30_000])
def test_a_huge_picture_is_refused_from_its_header(tmp_path, side):
    with pytest.raises(PolicyError, match="at most 16 million pixels are allowed") as refused:
        check_upload(claimed_size_png(tmp_path / "a.png", side, side), SHARED)
    assert refused.value.field == "picture"


def test_a_heavy_file_is_refused_before_it_is_opened(tmp_path):
    path = tmp_path / "a.png"
    with path.open("wb") as file:
        file.truncate(21 * 1024**2)
    with pytest.raises(PolicyError, match="at most 20 MB are allowed, this has 21 MB"):
        check_upload(path, SHARED)


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n", b"<svg/>", b"GIF89a" + b"\0" * 50])
def test_what_is_no_known_picture_is_refused(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(PolicyError, match="no picture that can be read; use PNG, JPEG, WEBP"):
        check_upload(tmp_path / "a.png", SHARED)


def test_an_empty_or_missing_upload_is_refused(tmp_path):
    with pytest.raises(PolicyError, match="the file is empty"):
        check_upload(tmp_path / "none.png", SHARED, field="mask")
