"""What happens when pictures are dropped, a set is chosen, a caption is written or a picture left out.

A tab joins this in three calls: ``train_source.build(form, desk)`` in its recipe column, ``train_pictures.build()`` in
its result column, and ``wire(Pictures(desk, source, pane, me), page, own)``. When it starts a run it gives the request
``edits_of(data, owner)`` as ``edits``, and shows what ``taken_up(request, owner)`` returns when it puts a run's request
into the form.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from studio.errors import RequestError, StudioError
from studio.training.captions import TEMPLATE, check_words
from studio.training.edits import Edits
from studio.training.layouts import one_line
from studio.training.uploads import Given
from studio.ui import live, picture_cards, train_source
from studio.ui.album import SHOWS, Album, Shot, album
from studio.ui.desk import Desk
from studio.ui.form import Updates, Values
from studio.ui.live import QUIET
from studio.ui.markup import NOTHING, Markup, joined, tag
from studio.ui.place import pressed
from studio.ui.train_pictures import Pane
from studio.ui.train_source import Source
from studio.workbench import new_owner

AT_ONCE = 0.4  # seconds that are spent on looking at pictures before a set is first shown
AT_A_TIME = 1.0  # and each time that more of a large set is looked at
LONGEST_TEXT = 20_000  # characters that are taken of what comes as a caption, to be cut to what a caption may have
EMPTY = (
    "Your pictures appear here",
    "Drop pictures, a folder or a .zip anywhere on this tab; 5 to 30 pictures of one subject are usual.",
)


class Pictures:
    """The handlers. ``me`` is where the page keeps its owner's token."""

    def __init__(self, desk: Desk, source: Source, pane: Pane, me: gr.BrowserState) -> None:
        self.desk, self.source, self.pane, self.me = desk, source, pane, me
        self.form = source.form

    @property
    def inputs(self) -> set[Any]:
        """What the handlers read: the method decides what becomes of the captions."""
        names = ("data", "trigger", "template", "method", "instance_prompt")
        return {self.me, self.pane.view, *(self.form.controls[name] for name in names if name in self.form.controls)}

    def edits_of(self, data: str, owner: str) -> str:
        """What the page shows, under a name for the request's ``edits``. Raises RequestError about ``data``."""
        return self.desk.workbench.sets(owner).kept_edits(data)

    def taken_up(self, request: Mapping[str, Any], owner: str) -> Updates:
        """The edits of a request that goes into the form are what the page shows from now on: the pane with them.

        Drawn here, because a form that names the same set as before tells of no change; with a number, because gradio
        leaves alone what it was sent last, where captions may have been written since. Raises StudioError.
        """
        sets = self.desk.workbench.sets(owner)
        sets.take_up(str(request.get("data") or ""), str(request.get("edits") or ""))
        named = {control: request.get(name) for name, control in self.form.controls.items() if control in self.inputs}
        drawn = self._drawn({**named, self.me: {"owner": owner}}, {"show": "all", "page": 0}, fresh=True)
        return drawn | {self.pane.grid: joined(drawn[self.pane.grid], tag("i", hidden=True, data_drawn=time.time_ns()))}

    def opened(self, values: Values) -> Updates:
        """A set was chosen, or the tab opened: its files are listed anew."""
        owner = self._owner(values)
        offered = gr.update(choices=train_source.choices(self.desk, owner))
        return self._drawn(values, {"show": "all", "page": 0}, fresh=True) | {self.source.data: offered}

    def worded(self, values: Values) -> Updates:
        """Another trigger word, template or method: what is trained changes with it."""
        return self._drawn(values, values[self.pane.view])

    def looked(self, values: Values) -> Updates:
        """A large set is looked at bit by bit; what did not change is not sent again."""
        return self._drawn(values, values[self.pane.view], again=True)

    def pressed(self, values: Values, event: gr.EventData) -> Updates:
        """A button in the pane."""
        data = pressed(event)
        act, view = data.get("act"), dict(values[self.pane.view] or {})
        if act == "show" and data.get("show") in SHOWS:
            return self._drawn(values, {"show": data["show"], "page": 0}) | self._unpatched()
        if act == "turn" and data.get("page", "").isdecimal():
            return self._drawn(values, {**view, "page": int(data["page"][:6])}) | self._unpatched()
        if act in ("leave-out", "as-found"):
            return self._edited(values, data.get("picture", ""), act)
        return self._unpatched()

    def captioned(self, values: Values, event: gr.EventData) -> Updates:
        """A caption was written; ``event`` has the picture, the text and the number that the page waits for."""
        data = event._data if isinstance(event._data, dict) else {}
        found = {name: str(data.get(name) or "")[:LONGEST_TEXT] for name in ("picture", "text", "number")}
        return self._edited(values, found["picture"], "write", found["text"], found["number"][:20])

    def uploaded(self, values: Values) -> Updates:
        """Files were dropped or chosen: into the set that is shown, if it is one's own, or else into a new one."""
        paths = [Path(path) for path in values[self.source.drop] or ()]
        owner, data = self._owner(values), values[self.source.data] or ""
        try:
            given = [Given(*pair) for pair in zip(paths, _names(values[self.source.names], paths), strict=True)]
            name, others = self.desk.workbench.sets(owner).add(given, data)
        except StudioError as error:
            return {self.source.said: train_source.said_of(_plain(error), self.desk, error=True), self.source.names: ""}
        words = picture_cards.left_over(others) if others else train_source.HINT
        offered = gr.update(choices=train_source.choices(self.desk, owner), value=name)
        me = {**(values[self.me] if isinstance(values[self.me], dict) else {}), "owner": owner}
        after = {**values, self.me: me, self.source.data: name}
        return self._drawn(after, {"show": "all", "page": 0}, fresh=True) | {
            self.source.said: train_source.said_of(words, self.desk),
            self.source.names: "",
            self.source.data: offered,
            self.me: me,
        }

    def _owner(self, values: Values) -> str:
        return live.owner_of(values[self.me]) or new_owner()

    def _drawn(self, values: Values, view: Any, *, fresh: bool = False, again: bool = False) -> Updates:
        """The pane for a set; with ``again`` the grid only where it is another one than was drawn last."""
        owner, data = self._owner(values), values[self.source.data] or ""
        view = view if isinstance(view, dict) else {}
        show, page = str(view.get("show", "all")), int(view.get("page", 0))
        look = AT_ONCE if fresh else AT_A_TIME if again else 0.0
        try:
            title, found = self._album(values, owner, data, fresh=fresh, look=look)
        except StudioError as error:
            return self._nothing("" if data.strip() else EMPTY[1], error)
        token = self.desk.files.pictures.token(owner, data)
        drawn = [found.done, *(shot.id for shot in picture_cards.on_page(found, show, page))]
        updates: Updates = {
            self.pane.head: picture_cards.head(title, found, show, self._note(values)),
            self.pane.timer: gr.Timer(active=not found.done),
            self.pane.view: {"show": show, "page": page, "drawn": drawn},
        }
        if not again or view.get("drawn") != drawn:
            updates[self.pane.grid] = picture_cards.grid(found, show, page, token, _short(data))
        return updates

    def _album(self, values: Values, owner: str, data: str, *, fresh: bool, look: float) -> tuple[str, Album]:
        sets, named = self.desk.workbench.sets(owner), self._named(values)
        reading = sets.reading(data, fresh=fresh)
        if look:
            reading.look(look)
        trigger, template, _ = _words(named)
        return sets.title(data), album(reading, sets.edits(data), trigger, template)

    def _edited(self, values: Values, picture: str, act: str, text: str = "", number: str = "") -> Updates:
        """Change the edits of one picture; the answer is what has to change in the page beside what is written."""
        # Of a page that has no owner yet nothing is kept, or it would be under a token that is lost with the answer.
        owner, data, serial = live.owner_of(values[self.me]), values[self.source.data] or "", str(time.time_ns())
        show = str((values[self.pane.view] or {}).get("show", "all"))
        try:
            sets = self.desk.workbench.sets(owner)
            file = sets.reading(data).by_id.get(picture)
            if file is None:
                raise RequestError("data: this picture is not here any more; choose the set again.", field="data")
            example = next((each for each in sets.reading(data).dataset.examples if each.name == file.name), None)
            sets.change(data, lambda edits: _changed(edits, file.name, example and example.found, act, text))
            _, found = self._album(values, owner, data, fresh=False, look=0.0)
        except StudioError as error:
            return {self.pane.patch: picture_cards.refusal(_plain(error), answers=number, serial=serial)}
        shots: list[Shot] = [shot for shot in found.shots if shot.id == picture]
        return {self.pane.patch: picture_cards.patch(shots, found, show, answers=number, serial=serial)}

    def _named(self, values: Values) -> dict[str, Any]:
        return {name: values[control] for name, control in self.form.controls.items() if control in self.inputs}

    def _note(self, values: Values) -> Markup:
        """What a word that cannot be used, or the method, makes of the captions."""
        named = self._named(values)
        wrong = _words(named)[2]
        if wrong:
            return tag("p", wrong, cls="is-error")
        if named.get("method") != "dreambooth":
            return NOTHING
        said = f"DreamBooth tells the model {named.get('instance_prompt') or ''!r} for every picture, not its caption."
        return tag("p", said, cls="hint")

    def _nothing(self, words: str, error: StudioError) -> Updates:
        """No set, or one that cannot be shown: what to do stands where the pictures would."""
        title = EMPTY[0] if words else "These pictures cannot be shown"
        return {
            self.pane.head: picture_cards.nothing(title, words or _plain(error), wrong=not words),
            self.pane.grid: "",
            self.pane.timer: gr.Timer(active=False),
            self.pane.view: {"show": "all", "page": 0},
        }

    def _unpatched(self) -> Updates:
        return {self.pane.patch: ""}


def wire(handlers: Pictures, page: gr.Blocks, own: gr.Tab) -> None:
    """Register the listeners; ``own`` is the tab that all of it stands on."""
    source, pane, controls = handlers.source, handlers.pane, handlers.form.controls
    read = handlers.inputs
    opening = [*pane.parts, source.data]
    gr.on([own.select, source.data.change], handlers.opened, read, opening, trigger_mode="always_last", **QUIET)
    words = [controls[name].change for name in ("trigger", "template", "method", "instance_prompt") if name in controls]
    gr.on(words, handlers.worded, read, pane.parts, trigger_mode="always_last", **QUIET)
    pane.timer.tick(handlers.looked, read, pane.parts, trigger_mode="once", **QUIET)
    results = [*pane.parts, pane.patch]
    for place in (pane.head, pane.grid):
        place.press(handlers.pressed, read, results, trigger_mode="multiple", **QUIET)
    pane.grid.caption(handlers.captioned, read, pane.patch, trigger_mode="multiple", **QUIET)
    dropped = read | {source.drop, source.names}
    answers = [*opening, source.said, source.names, handlers.me]
    source.drop.upload(handlers.uploaded, dropped, answers, **QUIET)


def _changed(edits: Edits, name: str, found: str | None, act: str, text: str) -> Edits:
    """One picture's edits after ``act``. A caption that is as it was found is no edit."""
    if act == "leave-out":
        return edits.taking_back(name) if name in edits.left_out else edits.leaving_out(name)
    caption = one_line(text)[: picture_cards.LONGEST_CAPTION]
    if act == "as-found" or caption == (found or ""):
        return edits.without_caption(name)
    return edits.with_caption(name, caption)


def _words(named: Mapping[str, Any]) -> tuple[str, str, str]:
    """Trigger word and template; where these cannot be used, none and the usual one, and the reason."""
    trigger, template = str(named.get("trigger") or ""), named.get("template")
    template = TEMPLATE if template is None else str(template)
    try:
        check_words(trigger, template)
    except RequestError as error:
        return "", TEMPLATE, f"{str(error.field).capitalize()}: {str(error).partition(': ')[2]}"
    return trigger, template, ""


def _names(told: object, paths: list[Path]) -> list[str]:
    """The files' names with their folders, as the page told them; else the names that they arrived under."""
    try:
        names = json.loads(told) if isinstance(told, str) and told else None
    except (ValueError, RecursionError):
        names = None
    fits = isinstance(names, list) and len(names) == len(paths) and all(isinstance(name, str) for name in names)
    return names if fits else [path.name for path in paths]


def _plain(error: StudioError) -> str:
    """An error's sentence without the field that it begins with: it stands where that field is."""
    words = str(error).removeprefix("data: ")
    return words[:1].upper() + words[1:]


def _short(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:16]
