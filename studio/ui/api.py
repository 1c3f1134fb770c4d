"""The page's public interface for programs: three named calls that meet the same rules as the page.

Where strangers can visit, jobs belong to a key that the caller chooses and gives with every call.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.errors import StudioError
from studio.ui.desk import ENGINE, Desk
from studio.ui.files import named_files
from studio.workbench import LOCAL_OWNER, OWNER, Workbench

NAMES = ("generate", "snapshot", "cancel")
NO_JOB = "job: you have no job of this name."
NEEDS_KEY = "key: choose a secret of 16 to 64 letters and digits, and give it with every call about your jobs."


def build(desk: Desk) -> None:
    """Register the calls; to be used while the page is built."""
    workbench = desk.workbench

    def generate(request: dict[str, Any], key: str = "") -> str:
        """Queue an illusion (the fields of IllusionRequest) and return its job id."""
        try:
            return workbench.submit(ENGINE, request, _owner(workbench, key))
        except StudioError as error:
            raise gr.Error(str(error), print_exception=False) from None

    def snapshot(job: str, key: str = "") -> dict[str, Any]:
        """How far a job is; when it is done, also its result and the addresses of its files."""
        owner = _owner(workbench, key)
        found = workbench.snapshot(job, owner) if isinstance(job, str) else None
        if found is None:
            raise gr.Error(NO_JOB, print_exception=False)
        files = named_files(found.summary or {})
        return {
            "job": found.id,
            "status": found.status,
            "step": found.step,
            "total": found.total,
            "eta": found.eta,
            "reason": found.reason,
            "result": found.summary,
            "files": {name: desk.files.link(found.id, found.owner, name) for name in sorted(files)},
        }

    def cancel(job: str, key: str = "") -> bool:
        """Stop a job at its next step; false when there is nothing to stop."""
        owner = _owner(workbench, key)
        return isinstance(job, str) and workbench.cancel(job, owner)

    for call, name in zip((generate, snapshot, cancel), NAMES, strict=True):
        gr.api(call, api_name=name, concurrency_limit=None)


def _owner(workbench: Workbench, key: object) -> str:
    """The owner that a key stands for; at home everything belongs to the one person there."""
    if workbench.settings.profile == "local":
        return LOCAL_OWNER
    if not isinstance(key, str) or not OWNER.fullmatch(key):
        raise gr.Error(NEEDS_KEY, print_exception=False)
    return key
