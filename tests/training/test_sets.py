"""One owner's sets and edits: nobody else's, no path where strangers visit, and what is kept stays as it was."""

import os
import time

import pytest

from studio.errors import PolicyError, RequestError
from studio.policy import LOCAL, SHARED, Limits
from studio.settings import Settings
from studio.training.edits import Edits, named_edits
from studio.training.sets import Library
from studio.training.uploads import Given
from tests.training.sets import write_set

ANN, EVE = "ann-" + "0" * 20, "eve-" + "0" * 20


@pytest.fixture
def settings(tmp_path):
    write_set(tmp_path / "assets" / "datasets" / "mascot", {"a.png": 1, "a.txt": "a fox", "b.png": 2})
    return Settings(outputs=tmp_path / "outputs", assets=tmp_path / "assets")


@pytest.fixture
def library(settings):
    return Library(settings, SHARED)


@pytest.fixture
def given(tmp_path):
    folder = write_set(tmp_path / "sent", {"x.png": 3, "x.txt": "an owl", "y.png": 4})
    return [Given(path, path.name) for path in sorted(folder.iterdir())]


def names(sets, data):
    reading = sets.reading(data, fresh=True)
    reading.look(30)
    return [example.name for example in sets.dataset(data).examples]


def test_a_set_that_was_put_in_is_offered_to_its_owner_alone(library, given):
    name, others = library.of(ANN).add(given)
    assert others == ()
    assert [data for _, data in library.of(ANN).choices()] == ["builtin:mascot", name]
    assert [data for _, data in library.of(EVE).choices()] == ["builtin:mascot"]
    assert names(library.of(ANN), name) == ["x.png", "y.png"]


def test_of_two_sets_with_one_name_the_second_is_told_apart(library, given):
    cats = [Given(each.path, f"cats/{each.name}") for each in given]
    first, second = (library.of(ANN).add(cats)[0] for _ in range(2))
    assert library.of(ANN).choices()[1:] == [("cats 2", second), ("cats", first)]
    assert library.of(ANN).title(second) == "cats 2"


def test_nobody_looks_at_edits_checks_or_adds_to_another_s_set(library, given):
    name, _ = library.of(ANN).add(given)
    eve = library.of(EVE)
    for attempt in (
        lambda: eve.reading(name),
        lambda: eve.place(name),
        lambda: eve.title(name),
        lambda: eve.edits(name),
        lambda: eve.change(name, lambda edits: edits.leaving_out("x.png")),
        lambda: eve.kept_edits(name),
        lambda: eve.check(name),
    ):
        with pytest.raises(RequestError, match="not here any more"):
            attempt()
    other, _ = eve.add(given, name)
    assert other != name
    assert library.of(ANN).edits(name) == Edits()


@pytest.mark.parametrize("data", ["/etc", "~/pictures", "../x", "C:\\x", "upload:x", "x.zip"])
def test_where_strangers_visit_no_path_is_looked_at(library, data):
    with pytest.raises(PolicyError) as refused:
        library.of(ANN).reading(data)
    assert refused.value.field == "data"


def test_at_home_a_folder_is_read_where_it_lies_and_its_edits_lie_elsewhere(settings, tmp_path):
    folder = write_set(tmp_path / "mine", {"a.png": 1, "b.png": 2})
    sets = Library(settings, LOCAL).of("local")
    sets.change(str(folder), lambda edits: edits.with_caption("a.png", "a cat").leaving_out("b.png"))
    assert sorted(path.name for path in folder.iterdir()) == ["a.png", "b.png"]
    assert names(sets, f"{folder}/../mine") == ["a.png"]
    assert sets.dataset(f"{folder}/../mine").examples[0].caption == "a cat"


def test_edits_of_a_built_in_set_are_each_owner_s_own(library):
    library.of(ANN).change("builtin:mascot", lambda edits: edits.with_caption("a.png", "ann's"))
    assert library.of(ANN).edits("builtin:mascot").captions == {"a.png": "ann's"}
    assert library.of(EVE).edits("builtin:mascot") == Edits()


def test_kept_edits_stay_as_they_were_and_are_taken_up_again(library):
    sets, data = library.of(ANN), "builtin:mascot"
    assert sets.kept_edits(data) == ""
    sets.change(data, lambda edits: edits.with_caption("a.png", "one"))
    one = sets.kept_edits(data)
    sets.change(data, lambda edits: edits.with_caption("a.png", "two"))
    two = sets.kept_edits(data)
    assert named_edits(one, library.root).captions == {"a.png": "one"}
    sets.take_up(data, one)
    assert sets.edits(data).captions == {"a.png": "one"}
    assert sets.kept_edits(data) == one != two
    sets.take_up(data, "")
    assert sets.edits(data) == Edits()
    assert named_edits(two, library.root).captions == {"a.png": "two"}


def test_a_stranger_takes_up_no_file_of_this_machine(library, tmp_path):
    (tmp_path / "edits.json").write_text('{"version": 1, "captions": {"a.png": "x"}}')
    with pytest.raises(PolicyError, match="no file can be named"):
        library.of(ANN).take_up("builtin:mascot", str(tmp_path / "edits.json"))


def test_two_changes_at_once_are_both_there(library):
    from concurrent.futures import ThreadPoolExecutor

    sets = library.of(ANN)

    def write(number):
        sets.change("builtin:mascot", lambda edits: edits.with_caption(f"{number}.png", str(number)))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, range(24)))
    assert len(sets.edits("builtin:mascot").captions) == 24


def test_files_that_change_are_noticed_when_the_set_is_opened_again(library, given):
    sets = library.of(ANN)
    name, _ = sets.add(given[:1])
    assert names(sets, name) == ["x.png"]
    assert sets.add(given[1:], name) == (name, ())
    assert names(sets, name) == ["x.png", "y.png"]
    assert sets.dataset(name).examples[0].found == "an owl"


def test_a_stranger_has_few_sets_and_all_of_them_have_their_room(settings, given):
    library = Library(settings, Limits(max_sets=2, max_sets_bytes=10**9, listed_models_only=True))
    for _ in range(2):
        library.of(ANN).add(given)
    with pytest.raises(PolicyError, match="you have 2 sets here already"):
        library.of(ANN).add(given)
    full = Library(settings, Limits(max_sets=9, max_sets_bytes=1, listed_models_only=True))
    with pytest.raises(PolicyError, match="no room for another set today"):
        full.of(EVE).add(given)


def test_sets_of_strangers_go_after_a_day_that_nobody_looked_at_them(library, given):
    old, _ = library.of(ANN).add(given)
    used, _ = library.of(ANN).add(given)
    library.of(ANN).change("builtin:mascot", lambda edits: edits.leaving_out("a.png"))
    day = time.time() - 25 * 3600
    for path in library.root.rglob("*.json"):
        os.utime(path, (day, day))
    library.of(ANN).check(used)
    library._swept = 0.0
    library.sweep()
    assert [data for _, data in library.of(ANN).choices()] == ["builtin:mascot", used]
    assert library.of(ANN).edits("builtin:mascot") == Edits()
    with pytest.raises(RequestError, match="not here any more"):
        library.of(ANN).reading(old)


def test_at_home_nothing_goes(settings, given):
    library = Library(settings, LOCAL)
    name, _ = library.of("local").add(given)
    for path in library.root.rglob("*.json"):
        os.utime(path, (1, 1))
    library.sweep()
    assert names(library.of("local"), name) == ["x.png", "y.png"]


def test_no_set_chosen_is_a_sentence(library):
    with pytest.raises(PolicyError):
        library.of(ANN).reading("")
