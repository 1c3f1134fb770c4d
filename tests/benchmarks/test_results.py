from tests.benchmarks.results import RESULTS, with_section

TEXT = "# Results\n\n## One\n\na | b\n\n## Two\n\nc\n"


def test_a_section_is_replaced_in_its_place_and_the_others_stay():
    assert with_section(TEXT, "One", "new\n") == TEXT.replace("a | b", "new")
    assert with_section(TEXT, "Two", "new") == TEXT.replace("\nc\n", "\nnew\n")


def test_a_new_section_comes_last_and_an_empty_file_gets_a_title():
    assert with_section(TEXT, "Three", "d") == TEXT + "\n## Three\n\nd\n"
    assert with_section("", "One", "a") == "# Results\n\n## One\n\na\n"


def test_writing_what_stands_there_changes_nothing():
    text = RESULTS.read_text(encoding="utf-8")
    title, _, body = text.split("## ", 1)[1].split("\n## ")[0].partition("\n")
    assert with_section(text, title, body) == text
