"""Pictures to train on over HTTP, spoken to as their own page and as strangers would."""

import io
import json
import re
import urllib.error
import urllib.request
import zipfile

import pytest
from PIL import Image

from studio.training.edits import Edits
from tests.training.sets import encoded, picture, write_set
from tests.ui.conftest import ANN, EVE
from tests.ui.test_live import act, get

MASCOT = "builtin:mascot"


def sent(address, files):
    """What the page holds of files that it has uploaded: (name, bytes) each."""
    body = b"".join(
        f'--b\r\nContent-Disposition: form-data; name="files"; filename="{name.rpartition("/")[2]}"\r\n\r\n'.encode()
        + data
        + b"\r\n"
        for name, data in files.items()
    )
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    request = urllib.request.Request(f"{address}/gradio_api/upload", body + b"--b--\r\n", kind)
    with urllib.request.urlopen(request, timeout=30) as answer:
        places = json.loads(answer.read())
    return [{"path": place, "meta": {"_type": "gradio.FileData"}} for place in places]


def drop(address, me, files, into=MASCOT, names=None):
    """The page's answer to dropped files, as text."""
    told = json.dumps(list(files) if names is None else names)
    changes = {"Drop pictures here, or choose them": sent(address, files), "Names of the files": told, "Pictures": into}
    return json.dumps(act(address, "train-drop", "upload", me, changes)["data"])


def opened(address, me, data, **changes):
    """The pane of a set, as text."""
    return json.dumps(act(address, "train-data", "change", me, {"Pictures": data} | changes)["data"])


def pressed(address, me, data, **what):
    return json.dumps(act(address, "pictures-grid", "press", me, {"Pictures": data}, what)["data"])


def caption(address, me, data, name, text, number="1"):
    event = {"picture": name, "text": text, "number": number}
    return json.dumps(act(address, "pictures-grid", "caption", me, {"Pictures": data}, event)["data"])


def new_set(address, me, files):
    (name,) = set(re.findall(r"upload:[0-9a-f]{32}", re.sub(r'"choices": .*?\]\]', "", drop(address, me, files))))
    return name


def ids(text):
    """Picture ids by the pictures' names."""
    found = re.findall(r'Caption of ([^"\\]+)\\".*?data-caption=\\"([0-9a-f]{20})', text)
    return dict(found)


def two():
    return {"a.png": encoded(picture(1)), "b.png": encoded(picture(2)), "a.txt": b"a fox"}


def test_a_set_is_shown_with_captions_counts_and_what_is_trained(home):
    text = opened(home[1], ANN, MASCOT, **{"Trigger word": "sks"})
    assert "24 pictures" in text
    assert "a duckrabbit waving on a yellow background" in text
    assert "Trained as <q>sks, a duckrabbit waving on a yellow background</q>" in text
    assert len(ids(text)) == 24


def test_dropped_pictures_become_a_set_and_more_are_added_to_it(home):
    _, address = home
    name = new_set(address, ANN, two())
    text = opened(address, ANN, name)
    assert "2 pictures, 1 without caption" in text
    assert list(ids(text)) == ["a.png", "b.png"]
    assert name in drop(address, ANN, {"b.txt": b"an owl", "c.exe": b"x"}, into=name)
    text = opened(address, ANN, name)
    assert "2 pictures<" in text
    assert "an owl" in text


def test_folders_that_a_browser_told_of_stay_and_wrong_names_are_not_believed(home):
    bench, address = home
    files = {"a.png": encoded(picture(1)), "b.png": encoded(picture(2))}
    drop(address, ANN, files, names=["set/10_dog/a.png", "set/3_cat/b.png"])
    newest = bench.sets("local").choices()[2][1]
    assert list(ids(opened(address, ANN, newest))) == ["10_dog/a.png", "3_cat/b.png"]
    for names in (["only one"], [1, 2], {"a": 1}):
        drop(address, ANN, files, names=names)
    assert "cannot be used; rename the file" in drop(address, ANN, files, names=["../../a.png", "b.png"])


def test_a_caption_is_kept_without_the_original_changing_and_goes_back_to_what_was_found(home):
    bench, address = home
    name = new_set(address, ANN, two())
    picture_id = ids(opened(address, ANN, name))["a.png"]
    answer = caption(address, ANN, name, picture_id, "a red\nfox  <b>", number="7")
    assert 'data-answers=\\"7\\"' in answer
    assert "a red fox &lt;b&gt;" in answer
    sets = bench.sets("local")
    assert sets.edits(name) == Edits({"a.png": "a red fox <b>"})
    assert (sets.place(name) / "a.txt").read_bytes() == b"a fox"
    assert "a red fox &lt;b&gt;" in opened(address, ANN, name)
    assert 'data-changed=\\"false\\"' in pressed(address, ANN, name, act="as-found", picture=picture_id)
    assert sets.edits(name) == Edits()
    caption(address, ANN, name, picture_id, "a fox")
    assert sets.edits(name) == Edits()


def test_a_picture_is_left_out_and_taken_back(home):
    bench, address = home
    name = new_set(address, ANN, two())
    picture_id = ids(opened(address, ANN, name))["b.png"]
    assert "2 pictures, 1 left out<" in pressed(address, ANN, name, act="leave-out", picture=picture_id)
    assert "There is one picture only" in opened(address, ANN, name)
    assert [example.name for example in bench.sets("local").dataset(name).examples] == ["a.png"]
    assert "2 pictures, 1 without caption" in pressed(address, ANN, name, act="leave-out", picture=picture_id)


def test_captions_are_cut_to_what_is_read_and_strange_events_change_nothing(home):
    bench, address = home
    name = new_set(address, ANN, two())
    picture_id = ids(opened(address, ANN, name))["a.png"]
    caption(address, ANN, name, picture_id, "x" * 30_000)
    assert len(bench.sets("local").edits(name).captions["a.png"]) == 2000
    before = bench.sets("local").edits(name)
    for event in (None, [], {"picture": 1}, {"picture": "../a.png", "text": "y"}, {"picture": "0" * 20, "text": "y"}):
        act(address, "pictures-grid", "caption", ANN, {"Pictures": name}, event)
    for event in ({"act": "turn", "page": "-1"}, {"act": "turn", "page": "9" * 90}, {"act": "show", "show": "x"}, {}):
        act(address, "pictures-grid", "press", ANN, {"Pictures": name}, event)
    assert bench.sets("local").edits(name) == before


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "There is no picture here"),
        ({"a.txt": "a fox"}, "There is no picture here"),
        ({"a.png": 1}, "There is one picture only"),
        ({"a.png": 1, "b.png": 2, "lost.txt": "x"}, "lost.txt is a caption without its picture"),
        ({"a.png": 1, "b.png": b"no"}, "b.png is no picture that can be read"),
        ({"a.png": 1, "b.png": 1}, "b.png is the same file as a.png"),
        ({"a.png": 1, "b.heic": b"x"}, "b.heic is a heic file, so it is left out"),
        ({"a.png": 1, "b.jpg": encoded(picture(2, mode="CMYK"), "JPEG")}, "b.jpg: its CMYK colours become RGB."),
        ({"a.png": 1, "b.png": encoded(Image.new("I;16", (40, 40), 999))}, "b.png: its 16 bits become 8."),
        ({"a.png": 1, "b.png": encoded(picture(2, (20, 90)))}, "b.png has 20 x 90 pixels, so it is left out"),
        (
            {"a.png": 1, "b.gif": encoded(picture(2), "GIF", save_all=True, append_images=[picture(3)])},
            "b.gif: of its 2 frames only the first is used.",
        ),
    ],
)
def test_what_is_wrong_with_a_folder_is_one_sentence_each_before_anything_starts(home, tmp_path, files, words):
    (tmp_path / "set").mkdir()
    assert words in opened(home[1], ANN, str(write_set(tmp_path / "set", files)))


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"../a.png": b"x"}, "points outside of it"),
        ({"a.png": b"\0" * 30_000_000}, "no picture is packed like that"),
        ({}, "no picture or caption among these files"),
    ],
)
def test_a_zip_that_means_no_good_is_one_sentence(home, tmp_path, entries, words):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    before = home[0].sets("local").choices()
    assert words in drop(home[1], ANN, {"a.zip": (tmp_path / "a.zip").read_bytes()})
    assert home[0].sets("local").choices() == before
    if entries:
        assert words in opened(home[1], ANN, str(tmp_path / "a.zip"))


def test_pictures_inside_a_zip_are_shown_where_they_lie(home, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("in/a.png", encoded(picture(1, (900, 600))))
        archive.writestr("in/b.png", encoded(picture(2)))
    text = opened(home[1], ANN, str(tmp_path / "a.zip"))
    assert list(ids(text)) == ["in/a.png", "in/b.png"]
    (address, *_) = re.findall(r'src=\\"(pictures/[^"\\]+)', text)
    status, headers, body = get(home[1], f"/{address}")
    assert (status, headers["Content-Type"], headers["X-Content-Type-Options"]) == (200, "image/jpeg", "nosniff")
    assert Image.open(io.BytesIO(body)).size == (320, 213)
    assert Image.open(io.BytesIO(get(home[1], f"/{address.replace('?', '?size=large&')}")[2])).size == (900, 600)


def test_an_address_shows_pictures_of_its_own_set_and_nothing_else(home):
    text = opened(home[1], ANN, MASCOT)
    (address, *_) = re.findall(r'src=\\"(pictures/[^"\\?]+)', text)
    token, _ = address.removeprefix("pictures/").split("/")
    assert get(home[1], f"/{address}")[0] == 200
    for path in (
        f"/pictures/{token}/{'0' * 20}",
        f"/pictures/{token}/01-standing.png",
        f"/pictures/{token}/..%2F..%2Fset.json",
        f"/pictures/{'0' * 40}/{address.rpartition('/')[2]}",
    ):
        assert get(home[1], path)[0] == 404, path


def test_large_sets_come_in_pages_and_are_looked_at_bit_by_bit(home, tmp_path, monkeypatch):
    from studio.ui import train_pictures_events

    monkeypatch.setattr(train_pictures_events, "AT_ONCE", 0.02)
    colours = [Image.new("RGB", (32, 32), (index % 250, index // 250 * 60, 90)) for index in range(400)]
    folder = write_set(tmp_path / "many", {f"{index:03}.png": encoded(each) for index, each in enumerate(colours)})
    assert re.search(r"Looking at the pictures: \d+ of 400", opened(home[1], ANN, str(folder)))
    monkeypatch.setattr(train_pictures_events, "AT_ONCE", 60)  # in place of the ticks of a page
    text = opened(home[1], ANN, str(folder))
    assert "400 pictures" in text
    assert len(ids(text)) == 24
    assert "1 to 24 of 400" in text
    later = pressed(home[1], ANN, str(folder), act="turn", page="16")
    assert list(ids(later)) == [f"{index:03}.png" for index in range(384, 400)]
    assert list(ids(pressed(home[1], ANN, str(folder), act="turn", page="999999")))[-1] == "399.png"


def test_a_trigger_word_that_cannot_be_used_is_a_sentence_and_hides_no_picture(home):
    text = opened(home[1], ANN, MASCOT, **{"Trigger word": "a, b"})
    assert "Trigger: leave out commas and brackets" in text
    assert len(ids(text)) == 24


def test_a_stranger_names_no_path_and_sees_nothing_of_another_s_set(shared, tmp_path):
    bench, address = shared
    write_set(tmp_path, {"a.png": 1, "b.png": 2})
    assert "No folder can be named" in opened(address, EVE, str(tmp_path))
    name = new_set(address, ANN, two())
    mine = opened(address, ANN, name)
    assert "2 pictures" in mine
    for text in (
        opened(address, EVE, name),
        pressed(address, EVE, name, act="leave-out", picture=ids(mine)["a.png"]),
        caption(address, EVE, name, ids(mine)["a.png"], "mine now"),
    ):
        assert "not here any more" in text
        assert "a fox" not in text
    assert bench.sets(ANN).edits(name) == Edits()
    drop(address, EVE, {"c.png": encoded(picture(3))}, into=name)
    assert "2 pictures" in opened(address, ANN, name)


def test_edits_of_a_built_in_set_are_seen_by_their_stranger_alone(shared):
    _, address = shared
    picture_id = ids(opened(address, ANN, MASCOT))["01-standing.png"]
    caption(address, ANN, MASCOT, picture_id, "ann was here")
    assert "ann was here" in opened(address, ANN, MASCOT)
    assert "ann was here" not in opened(address, EVE, MASCOT)


def test_a_page_without_an_owner_is_told_so_before_it_believes_that_anything_is_kept(shared):
    _, address = shared
    picture_id = ids(opened(address, "", MASCOT))["02-waving.png"]
    answer = caption(address, "", MASCOT, picture_id, "lost", number="3")
    assert "this browser has no valid token; reload the page" in answer
    assert 'data-answers=\\"3\\"' in answer


def test_a_stranger_puts_in_a_small_set_and_no_more(shared):
    bench, address = shared
    me = "max-" + "2" * 20
    many = {f"{index}.txt": str(index).encode() for index in range(121)}
    assert "at most 120 files here, not 121" in drop(address, me, many)
    wide = encoded(Image.new("1", (5000, 4000)))
    assert "picture wide.png has more than 16 million pixels" in drop(address, me, {"wide.png": wide})
    assert [data for _, data in bench.sets(me).choices()] == [MASCOT, "builtin:pixel"]
    for _ in range(3):
        new_set(address, me, {"a.png": encoded(picture(1))})
    assert "You have 3 sets here already" in drop(address, me, {"a.png": encoded(picture(1))})


def test_a_file_of_this_machine_is_no_upload(shared, tmp_path):
    me = "tom-" + "3" * 20
    write_set(tmp_path, {"a.png": 1})
    chosen = [{"path": str(tmp_path / "a.png"), "meta": {"_type": "gradio.FileData"}}]
    with pytest.raises(urllib.error.HTTPError):
        act(shared[1], "train-drop", "upload", me, {"Drop pictures here, or choose them": chosen})
    assert [data for _, data in shared[0].sets(me).choices() if data.startswith("upload:")] == []
