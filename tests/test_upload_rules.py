import pytest
from PIL import Image

from studio.errors import PolicyError
from studio.policy import LOCAL, SHARED
from studio.upload_rules import check_set, check_set_picture, check_sets
from tests.test_policy import claimed_size_png


@pytest.mark.parametrize(
    ("files", "size", "words"),
    [
        (121, 1, "data: a set has at most 120 files here, not 121; leave some out."),
        (1, 61 * 1024**2, "data: a set has at most 60 MB here, not 61 MB; shrink its pictures."),
    ],
)
def test_a_stranger_s_set_is_small(files, size, words):
    check_set(120, 60 * 1024**2, SHARED)
    check_set(files, size, LOCAL)
    with pytest.raises(PolicyError) as refused:
        check_set(files, size, SHARED)
    assert (str(refused.value), refused.value.field) == (words, "data")


def test_a_stranger_has_three_sets_and_at_home_there_is_no_end():
    check_sets(2, 0, SHARED)
    check_sets(10**6, 10**15, LOCAL)
    with pytest.raises(PolicyError, match="you have 3 sets here already"):
        check_sets(3, 0, SHARED)
    with pytest.raises(PolicyError, match="no room for another set today"):
        check_sets(0, SHARED.max_sets_bytes, SHARED)


@pytest.mark.parametrize("side", [5_000, 12_000, 30_000])
def test_a_bomb_is_refused_by_its_header(tmp_path, side):
    with pytest.raises(PolicyError, match="the picture a.png has more than 16 million pixels; shrink it"):
        check_set_picture(claimed_size_png(tmp_path / "a.png", side, side), SHARED)


@pytest.mark.parametrize("content", [b"", b"no picture", b"GIF89a"])
def test_what_is_no_picture_is_left_to_be_named_beside_the_others(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    check_set_picture(tmp_path / "a.png", SHARED)
    Image.new("CMYK", (4000, 4000)).save(tmp_path / "b.tif")
    check_set_picture(tmp_path / "b.tif", SHARED)
