from studio.ui.markup import ICONS, MARK, Markup, icon, joined, tag


def test_text_is_escaped_and_markup_is_not():
    assert tag("p", "<b>", Markup("<i></i>")) == "<p>&lt;b&gt;<i></i></p>"
    assert tag("img", alt='"x" onerror="y') == '<img alt="&quot;x&quot; onerror=&quot;y">'


def test_attributes_are_written_as_html_names_and_left_out_when_there_is_nothing_to_say():
    written = tag(
        "button", "go", cls="btn", data_act="go", hidden=False, disabled=True, title=None, for_="x", tabindex=0
    )
    assert written == '<button class="btn" data-act="go" disabled for="x" tabindex="0">go</button>'


def test_children_of_children_are_escaped_once():
    assert joined(tag("p", "a & b"), "c & d") == "<p>a &amp; b</p>c &amp; d"


def test_every_icon_is_drawn_and_silent_for_screen_readers():
    for name in ICONS:
        assert icon(name).startswith("<svg")
        assert 'aria-hidden="true"' in icon(name)
    assert 'aria-hidden="true"' in MARK
