"""The form of a merge: its components, what they read as a request, and which of them are shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from studio.errors import StudioError
from studio.ui import merge_data, merge_showing
from studio.ui.fields import listed
from studio.ui.form import Form, Updates, Values, combined, problems
from studio.ui.markup import Markup

ENGINE, STRIP, SEARCH = "merge", "merge-strip", "merge-search"
_OWN_SEED = re.compile(r"(^|(?<=[.?!] ))seed: ")
_OF_ZIP = re.compile(r"(?:^|(?<=[.?!] ))(prompts|steps)(?=[.:]|$)")
_OF_MERGE = re.compile(r"(^|(?<=[.?!] ))merge\.(?=[a-z])")


@dataclass
class MergeForm(Form):
    """Components by field name; ``shown``: columns by the names of what stands in them, shown where it is asked for."""

    shown: dict[str, gr.Column] = field(default_factory=dict)
    method_help: gr.HTML | None = None
    mixer: gr.HTML | None = None
    dice: gr.Button | None = None
    path: gr.Textbox | None = None
    more: gr.Accordion | None = None
    searching: gr.Accordion | None = None
    search_button: gr.Button | None = None
    preview: gr.Button | None = None
    save: gr.Button | None = None

    def request(self, values: Values) -> dict[str, Any]:
        """The merge's data as it stands in the form, unchecked."""
        return merge_data.read(self.named(values))

    def asked(self, engine: str, values: Values) -> dict[str, Any]:
        """The data of a merge, or of a preview or a search of it."""
        read = {STRIP: merge_data.strip, SEARCH: merge_data.search}.get(engine, merge_data.read)
        return read(self.named(values))

    def filled(self, data: Mapping[str, Any], engine: str = ENGINE) -> Updates:
        """The form with a request's data in it; what a merge leaves out gets its default, what is drawn stays."""
        merge = data if engine == ENGINE else data.get("merge") or {}
        named = merge_data.written(merge)
        if engine != ENGINE:
            known = (*merge_data.DRAWN, *merge_data.SEARCHED)
            named |= {name: data[name] for name in known if name in data}
            named |= {"prompts": "\n".join(data.get("prompts") or ()), "picture_seed": data.get("seed", 0)}
        if engine == STRIP:
            named["alphas"] = listed(data.get("alphas"))
        return combined(self.updates(named), self.opened(named))

    @property
    def openable(self) -> list[Any]:
        folds = [self.method_help, self.more, self.searching]
        return [*self.shown.values(), *folds, self.preview, self.save]

    def opened(self, named: Mapping[str, Any]) -> Updates:
        """Only what the task and the method ask for is shown; alpha and the options get the method's limits."""
        return merge_showing.opened(self, named)

    def problems(self, error: StudioError, engine: str = "") -> dict[str, Markup]:
        """Previews and searches hold the merge, and a seed, prompts and steps of their own beside the merge's."""
        if engine in (STRIP, SEARCH):
            words = _OF_MERGE.sub("", _OWN_SEED.sub("picture_seed: ", str(error)))
            name = error.field or ""
            own = "picture_seed" if name == "seed" else name.removeprefix("merge.").removeprefix("merge")
            error = StudioError(words, field=own or None)
        elif engine == ENGINE:
            error = StudioError(
                _OF_ZIP.sub(r"zip_\1", str(error)), field=_OF_ZIP.sub(r"zip_\1", error.field or "") or None
            )
        return problems(error, self.notes)
