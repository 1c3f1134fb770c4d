"""The card of a trained adapter, as the Hub reads it: what it is, how it was trained, what was measured, how to use it.

Written only when somebody asks for it; the licence is theirs to choose.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio import requests
from studio.errors import ModelError, RecipeError, RequestError
from studio.models.files import read_header_and_notes
from studio.models.refs import BUILTIN, is_hub_id
from studio.training.kinds import KINDS
from studio.training.preflight import headline
from studio.training.request import TrainRequest

CARD = "README.md"
LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]{1,40}")
# modelspec.architecture, before "/lora" -> the Hub's tag.
FAMILY_TAGS = {
    "stable-diffusion-v1": "stable-diffusion",
    "stable-diffusion-v2-768-v": "stable-diffusion",
    "stable-diffusion-xl-v1-base": "stable-diffusion-xl",
    "stable-diffusion-3-medium": "sd3",
}


@dataclass(frozen=True)
class Choices:
    """What nobody but a person can say. ``base_model`` is the model's name on the Hub where the run used a copy."""

    licence: str = ""
    base_model: str = ""

    def check(self) -> None:
        """Raises RequestError for what the Hub would not take."""
        if self.licence and not LICENCE.fullmatch(self.licence):
            raise RequestError(
                "licence: give it as the Hub writes it, such as apache-2.0, cc-by-4.0 or openrail.", field="licence"
            )
        if self.base_model and not is_hub_id(self.base_model):
            raise RequestError("base_model: give a name on the Hub, such as owner/name.", field="base_model")


@dataclass(frozen=True)
class Trained:
    """A finished run's folder: the request, result.json, and what the adapter's header says."""

    folder: Path
    request: TrainRequest
    result: dict[str, Any]
    notes: dict[str, str]

    @classmethod
    def read(cls, folder: Path) -> Trained:
        """Raises RequestError for a folder that holds no finished training."""
        try:
            data = json.loads((folder / "request.json").read_text(encoding="utf-8"))
            result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
            request = requests.parse(TrainRequest, data)
            notes = read_header_and_notes(folder / result["files"]["last"]["kohya"])[1]
        except (OSError, ValueError, LookupError, TypeError, RequestError, ModelError, RecipeError):
            raise RequestError(
                f"{folder} holds no training that is done; name the folder that it was written to.", field="run"
            ) from None
        return cls(folder, request, result, notes)

    @property
    def files(self) -> list[str]:
        """Names of the adapter's files and folders, the best step's after the last one's."""
        return [name for kinds in self.result["files"].values() for name in kinds.values()]

    @property
    def samples(self) -> list[tuple[str, str]]:
        """(prompt, picture) of the best step where there are any of that step, else of the last."""
        steps = {drawn["step"]: drawn["pictures"] for drawn in self.result.get("samples", ())}
        if not steps:
            return []
        names = steps.get(self.result.get("best_step"), steps[max(steps)])
        return list(zip(self.request.sample_prompts, names, strict=False))


def write(run: Trained, choices: Choices = Choices(), *, again: bool = False) -> Path:
    """README.md in the run's folder. One that is there stays, unless it shall be written ``again``."""
    choices.check()
    path = run.folder / CARD
    if path.exists() and not again:
        raise RequestError(f"{path} is there already; give --again to write it anew.", field="again")
    path.write_text(text(run, choices), encoding="utf-8")
    return path


def text(run: Trained, choices: Choices = Choices()) -> str:
    """The whole card. No path of this machine is in it."""
    from huggingface_hub import ModelCardData

    base = _base_model(run.request, choices)
    samples = [{"text": prompt, "output": {"url": picture}} for prompt, picture in run.samples]
    data = ModelCardData(
        base_model=base or None,
        library_name="diffusers",
        license=choices.licence or None,
        pipeline_tag="text-to-image",
        tags=["text-to-image", "diffusers", *_tags(run)],
        instance_prompt=run.request.instance_prompt or run.request.trigger or None,
        widget=samples or None,
    )
    parts = (_title(run, base), _samples(run), _use(run, base), _training(run), _curve(run), _licence(choices))
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(filter(None, parts)) + "\n"


def _base_model(request: TrainRequest, choices: Choices) -> str:
    """Only the Hub's own names: anything else would point to nothing there."""
    on_hub = is_hub_id(request.model) and not Path(request.model).expanduser().exists()
    return choices.base_model or (request.model if on_hub else "")


def _tags(run: Trained) -> list[str]:
    family = FAMILY_TAGS.get(run.notes.get("modelspec.architecture", "").partition("/")[0])
    kind = [] if run.request.adapter == "lora" else [run.request.adapter]
    return [*filter(None, [family]), "lora", *kind, "template:sd-lora"]


def _title(run: Trained, base: str) -> str:
    kind = KINDS[run.request.adapter]
    model = f"[{base}](https://huggingface.co/{base})" if base else f"`{_plain(_model(run.request))}`"
    said = f"# {_plain(headline(run.request))}\n\nA {kind.title} adapter for {model}, trained with Duckrabbit"
    trigger = run.request.instance_prompt or run.request.trigger
    return f"{said}. Write `{_plain(trigger)}` in the prompt to use it." if trigger else f"{said}."


def _model(request: TrainRequest) -> str:
    """A name without the folders before it."""
    return request.model if request.model.startswith(BUILTIN) else Path(request.model).name


def _samples(run: Trained) -> str:
    rows = [f"![{_plain(prompt)}]({picture})\n*{_plain(prompt)}*" for prompt, picture in run.samples]
    return "\n\n".join(["## Samples", *rows]) if rows else ""


def _use(run: Trained, base: str) -> str:
    named = "\n".join(f"- `{name}`: {WHAT.get(kind, kind)}" for kind, name in run.result["files"]["last"].items())
    best = run.result["files"].get("best", {})
    named += "".join(f"\n- `{name}`: the same of the best step" for name in best.values())
    file = run.result["files"]["last"].get("diffusers")
    if file is None:
        return f"## Use\n\n{named}"
    return (
        f"## Use\n\n{named}\n\n```python\nfrom diffusers import AutoPipelineForText2Image\n\n"
        f'pipeline = AutoPipelineForText2Image.from_pretrained("{base or "MODEL"}")\n'
        f'pipeline.load_lora_weights("FOLDER_OR_REPOSITORY", weight_name="{file}")\n```'
    )


WHAT = {
    "kohya": "for ComfyUI, A1111 and Duckrabbit",
    "diffusers": "for diffusers",
    "peft": "for PEFT, a folder for each part",
}


def _training(run: Trained) -> str:
    request, result, notes = run.request, run.result, run.notes
    rows = {
        "method": request.method.replace("_", " "),
        "pictures": f"{notes.get('ss_num_train_images', '?')} an epoch, repeats counted",
        "class pictures": request.class_pictures or None,
        "plan": next(iter(result.get("notes", ())), "").rstrip(".") or None,
        "done": f"{result['steps']:,} steps, {result['epochs']:g} epochs" + ", then stopped" * result["stopped"],
        "batch": f"{request.batch_size} x {request.accumulation} accumulated",
        "resolution": notes.get("modelspec.resolution"),
        "rank, alpha": f"{request.rank}, {request.scale:g}" if KINDS[request.adapter].ranked else None,
        "layers": request.targets + (" and text encoders" if request.text_encoder else ""),
        "optimiser": f"{request.optimizer}, learning rate {request.learning_rate:g}, {request.schedule}",
        "precision": request.precision,
        "seed": request.seed,
    }
    lines = [f"| {name} | {_plain(str(value))} |" for name, value in rows.items() if value is not None]
    return "\n".join(["## Training", "", "| | |", "|---|---|", *lines])


def _curve(run: Trained) -> str:
    result = run.result
    said = [f"The smoothed loss ended at {result['loss']:.5f}."]
    if result.get("best_validation") is not None and result.get("validation_before") is not None:
        said.append(
            f"On held-out pictures, at fixed noise and levels, it was {result['validation_before']:.5f} before and "
            f"{result['best_validation']:.5f} at its best, after step {result['best_step']:,}."
        )
    return "## Measured\n\n" + " ".join(said)


def _licence(choices: Choices) -> str:
    chosen = f"`{choices.licence}`" if choices.licence else "None was chosen yet; the base model's terms hold as well"
    return f"## Licence\n\n{chosen}."


def _plain(said: str) -> str:
    """Text of a person's in a table, a code span or a picture's title: nothing in it is markup."""
    return " ".join(re.sub(r"[`|<>\[\]*\\]", " ", said).split())
