"""A trained adapter on the Hugging Face Hub: uploaded when somebody says so, and at no other time.

Who may is decided by huggingface_hub's own login alone; no token is taken, kept or shown here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from studio.errors import RequestError, StudioError
from studio.models.refs import is_hub_id
from studio.training.card import CARD, Choices, Trained, write

LOGIN = "log in with `hf auth login`, with a token that may write"


@dataclass(frozen=True)
class Published:
    """Where it is now, and what went there."""

    url: str
    files: tuple[str, ...]


def files_of(run: Trained) -> list[str]:
    """What is uploaded: card, adapters and samples; never the requests and jobs beside them, which name places here."""
    drawn = [name for sample in run.result.get("samples", ()) for name in sample["pictures"]]
    sheet = ["samples.png"] if (run.folder / "samples.png").exists() else []
    folders = [f"{name}/*" if (run.folder / name).is_dir() else name for name in run.files]
    return [CARD, *folders, *drawn, *sheet]


def push(
    run: Trained, repository: str, *, private: bool = False, offline: bool = False, choices: Choices = Choices()
) -> Published:
    """Upload ``run`` to ``repository`` (owner/name), which is made if need be; its card too, where it has none yet.

    Raises RequestError for what can be mended, StudioError where the Hub does not take it.
    """
    from huggingface_hub import HfApi, get_token

    if offline:
        raise RequestError("offline: this studio never asks the Hub; leave --offline out to push.", field="offline")
    if not is_hub_id(repository):
        raise RequestError("repo: give it as owner/name, such as ann/my-lora.", field="repo")
    choices.check()
    if get_token() is None:
        raise RequestError(f"repo: nobody is logged in to the Hub here; {LOGIN}.", field="repo")
    if not (run.folder / CARD).exists():
        write(run, choices)
    names = files_of(run)
    with _in_words(repository):
        api = HfApi(library_name="duckrabbit")
        url = api.create_repo(repository, private=private, exist_ok=True)
        message = f"Upload {run.result['output']}"
        api.upload_folder(repo_id=url.repo_id, folder_path=run.folder, allow_patterns=names, commit_message=message)
    return Published(str(url), tuple(names))


@contextmanager
def _in_words(repository: str) -> Iterator[None]:
    """What the Hub or the way to it says, as one sentence; never the request, whose headers hold the token."""
    from httpx2 import HTTPError
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        yield
    except OfflineModeIsEnabled:
        raise RequestError("offline: HF_HUB_OFFLINE is set; take it away to push.", field="offline") from None
    except HFValidationError:
        raise RequestError("repo: the Hub takes no such name; give it as owner/name.", field="repo") from None
    except HfHubHTTPError as error:
        code = error.response.status_code
        if code in (401, 403):
            raise RequestError(f"repo: you may not write to {repository}; {LOGIN}.", field="repo") from None
        raise StudioError(f"The Hub did not take it (HTTP {code}); nothing here changed, try again later.") from None
    except (HTTPError, OSError) as error:
        kind = type(error).__name__
        raise StudioError(f"The Hub cannot be reached ({kind}); nothing here changed, try again later.") from None
