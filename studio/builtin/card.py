"""The model cards: what was measured, beside how and from what the models were made."""

from __future__ import annotations

import json
from pathlib import Path

from studio.builtin.denoiser import RESTYLE_SEED
from studio.builtin.ink import STYLE, TINT
from studio.builtin.measure import GUIDANCE, SEED, STEPS, Measured, contact_sheet
from studio.builtin.measure_ink import EVERY, NEAR, InkMeasured
from studio.builtin.recipe import Recipe

LICENCE = """The weights were trained by this project from nothing but its own renderings of
**Noto Color Emoji** (Google, SIL Open Font License 1.1; Debian package `fonts-noto-color-emoji`, needed for training
only); the font itself is not shipped."""


def write_cards(measured: Measured, model: Path, scorer: Path, recipe: Recipe, work: Path) -> None:
    """Write both README.md cards and the contact sheet, with the hours read from the loss logs under ``work``."""
    hours = {part: _last(work / part / "log.jsonl") for part in ("autoencoder", "denoiser", "scorer")}
    contact_sheet(measured.pictures).save(model / "sheet.png", optimize=True)
    (model / "README.md").write_text(_model_card(measured, recipe, hours), encoding="utf-8")
    (scorer / "README.md").write_text(_scorer_card(measured, recipe, hours), encoding="utf-8")


def write_ink_card(measured: InkMeasured, model: Path, recipe: Recipe, work: Path) -> None:
    """Write the ink model's README.md and contact sheet, with the hours read from its loss log under ``work``."""
    contact_sheet(measured.pictures).save(model / "sheet.png", optimize=True)
    (model / "README.md").write_text(_ink_card(measured, recipe, _last(work / "ink" / "log.jsonl")), encoding="utf-8")


def _last(log: Path) -> dict:
    return json.loads(log.read_text(encoding="utf-8").splitlines()[-1])


def _model_card(measured: Measured, recipe: Recipe, hours: dict[str, dict]) -> str:
    den, ae = hours["denoiser"], hours["autoencoder"]
    exposures = den["step"] * recipe.denoiser_batch // 200
    return f"""# builtin:emoji

A text-to-image model in Stable Diffusion's own layout, trained by this project: 200 things (`things.json`) at 128 px on
twelve named grounds. Stock `StableDiffusionPipeline.from_pretrained` loads this folder.

![64 generated pictures](sheet.png)

## Measured

{measured.as_markdown()}

Generated pictures: one per name, prompt "a <name>", {measured.steps} steps of DDIM, guidance {measured.scale:g}, seeds
{measured.seed} upwards. The script: `python -m studio.builtin measure`.

## Made

| part | shape | training |
|---|---|---|
| autoencoder | AutoencoderKL (16, 32, 64, 128), 8 channels, factor 8 | {ae["step"]:,} steps of 8 pictures or 32 crops, \
{ae["seconds"] / 3600:.1f} h, L2 + L1 + edges + KL 1e-4, half of the steps with a flip, quarter turn or block shuffle of code and \
target alike; begun from the weights of a one-hour trial with 4 channels |
| denoiser and text encoder | UNet2DConditionModel {recipe.denoiser_channels}, 2-layer CLIPTextModel, word-level \
tokenizer of 16 tokens | {den["step"]:,} steps of {recipe.denoiser_batch} cached latents (about {exposures:,} exposures per \
thing; the first 4,298 on the codes of an earlier edition of the autoencoder), {den["seconds"] / 3600:.1f} h, v-prediction, min-SNR 5, AdamW {recipe.denoiser.lr:g}, averaged weights |

Two CPU cores, shared with other work. Seeds: autoencoder 1, denoiser 11. Command: `python -m studio.builtin train
--budget cpu`.

## Data and licence

{LICENCE} Captions come from the things' Unicode names, shortened to plain words, in nine templates, half of them naming the
ground's colour. Shifts up to 1.5 %, scale 0.84 to 0.90, tilts up to 2 degrees, always upright.

## What it cannot do

It knows 200 things, one at a time, and twelve ground colours; other words are unknown to it. It was never shown people,
flags, text or photographs.
"""


def _scorer_card(measured: Measured, recipe: Recipe, hours: dict[str, dict]) -> str:
    log = hours["scorer"]
    return f"""# builtin:clip

A small CLIP (`transformers.CLIPModel`, 128 px, patches of 16, 128 shared dimensions) on the same world as builtin:emoji, with
seeds and augmentation of its own. It measures alignment and concealment of illusions; its numbers compare only with its own.

| measure | value | bar |
|---|---|---|
| right name first, fresh renderings, 200 names | {measured.scorer_top1:.1%} | at least 95 % |
| right name among the first five | {measured.scorer_top5:.1%} | - |

Trained for {log["step"]:,} steps of {recipe.scorer_batch} different things ({log["seconds"] / 60:.0f} minutes on two CPU cores), AdamW
{recipe.scorer.lr:g}, symmetric contrastive loss; shifts up to 4.5 %, scale 0.75 to 0.98, tilts up to 7 degrees, softening, noise and
contrast. Seed 77. Command: `python -m studio.builtin train --part scorer`; measured by `python -m studio.builtin measure`.

## Data and licence

{LICENCE}
"""


def _ink_card(measured: InkMeasured, recipe: Recipe, log: dict) -> str:
    return f"""# builtin:ink

[builtin:emoji](../emoji/README.md)'s 200 things as ink drawings on warm paper, at 128 px: its denoiser, fine-tuned.
Autoencoder, text encoder and tokenizer are builtin:emoji's, byte for byte, so that the two merge. Stock
`StableDiffusionPipeline.from_pretrained` loads this folder.

![64 generated pictures](sheet.png)

## Measured

{measured.as_markdown()}

Generated pictures: one per name, prompt "a <name>", {STEPS} steps of DDIM, guidance {GUIDANCE:g}, seeds {SEED} upwards. The right-hand
column is what true renderings give, so the most to be expected. *Nearest by shape* asks which of the 200 things, drawn in
ink by the program, correlates most with the picture's blurred ink. The scorer, [builtin:clip](../clip/README.md), learnt
from coloured pictures alone: it cannot read ink, so alignment and searches by it mean nothing for this model. A pixel
counts as a mixture of paper and ink within {NEAR:g} levels. Lines are finer than the autoencoder was made for, which its
PSNR shows. A picture takes as long as builtin:emoji's.

Weighted sums of the two denoisers, the same measures for every {EVERY}th name (alpha 0 is builtin:emoji, 1 this model):

{measured.way_as_markdown()}

The script: `python -m studio.builtin measure --model ink`.

## Made

UNet2DConditionModel {recipe.denoiser_channels}, begun from builtin:emoji's weights: {log["step"]:,} steps of {recipe.denoiser_batch} cached latents ({recipe.renderings} renderings per thing), {log["seconds"] / 3600:.1f} h
on one CPU core, v-prediction, min-SNR 5, AdamW {recipe.ink.lr:g}, averaged weights, seed {RESTYLE_SEED}; everything else frozen. Command:
`python -m studio.builtin train --budget cpu --part ink`.

## Data and licence

{LICENCE} Each rendering was turned into ink by image processing (`studio/builtin/ink.py`): brush lines along edges at two
scales, solid blacks, three flat washes by tone. Captions are builtin:emoji's. A caption that names no ground has plain
paper ({STYLE.unnamed:.0%} of the renderings); one that does has paper with {TINT:.0%} of that colour.

## What it cannot do

What builtin:emoji cannot; and hatching, or any line finer than half a latent cell (4 px).
"""
