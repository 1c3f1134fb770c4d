"""``python -m studio.builtin train|measure|datasets``: make the built-in models and sets, and measure what ships."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from studio.builtin import autoencoder, card, datasets, denoiser, export, ink, measure, measure_ink, scorer
from studio.builtin.loop import Schedule
from studio.builtin.recipe import RECIPES, Recipe

ASSETS = Path(__file__).parents[2] / "assets" / "models"
DATASETS = ASSETS.with_name("datasets")
PARTS = ("autoencoder", "scorer", "denoiser", "decoder", "ink")


def main(argv: list[str] | None = None) -> None:
    args = _arguments().parse_args(argv)
    if args.action == "datasets":
        datasets.write_all(DATASETS)
        return
    torch.set_flush_denormal(True)
    if args.action == "measure":
        MEASURE[args.model](args)
        return
    recipe = RECIPES[args.budget]
    for part in PARTS if args.part == "all" else (args.part,):
        TRAIN[part](recipe, args)


def _measure_emoji(args: argparse.Namespace) -> None:
    measured = measure.measure(ASSETS / "emoji", ASSETS / "clip")
    print(measured.as_markdown())
    if args.card:
        card.write_cards(measured, ASSETS / "emoji", ASSETS / "clip", RECIPES[args.budget], args.work)


def _measure_ink(args: argparse.Namespace) -> None:
    measured = measure_ink.measure(ASSETS / "emoji", ASSETS / "ink", ASSETS / "clip")
    print(measured.as_markdown(), measured.way_as_markdown(), sep="\n\n")
    if args.card:
        card.write_ink_card(measured, ASSETS / "ink", RECIPES[args.budget], args.work)


MEASURE = {"emoji": _measure_emoji, "ink": _measure_ink}


def _train_autoencoder(recipe: Recipe, args: argparse.Namespace) -> None:
    vae = autoencoder.train(
        _schedule(recipe.autoencoder, args),
        args.work / "autoencoder",
        batch=recipe.autoencoder_batch,
        start=args.start,
    )
    vae.save_pretrained(args.work / "vae")


def _train_scorer(recipe: Recipe, args: argparse.Namespace) -> None:
    schedule = _schedule(recipe.scorer, args)
    net, tokenizer = scorer.train(
        schedule,
        args.work / "scorer",
        batch=recipe.scorer_batch,
        per_thing=recipe.scorer_renderings,
        start=args.start,
    )
    export.export_scorer(net, tokenizer, ASSETS / "clip")


def _train_denoiser(recipe: Recipe, args: argparse.Namespace) -> None:
    vae = _autoencoder(args).eval().requires_grad_(False)
    vae.to("cuda" if torch.cuda.is_available() else "cpu")
    nets, tokenizer = denoiser.train(
        vae,
        _schedule(recipe.denoiser, args),
        args.work / "denoiser",
        batch=recipe.denoiser_batch,
        per_thing=recipe.renderings,
        channels=recipe.denoiser_channels,
        start=args.start,
    )
    export.export_pipeline(vae, nets, tokenizer, ASSETS / "emoji")


def _train_decoder(recipe: Recipe, args: argparse.Namespace) -> None:
    """Refine the shipped decoder in place; denoiser, codes and everything else stay as they are."""
    shipped = ASSETS / "emoji" / "vae"
    vae = autoencoder.refine_decoder(
        _autoencoder(args), _schedule(recipe.decoder, args), args.work / "decoder", batch=recipe.autoencoder_batch
    )
    vae.save_pretrained(args.work / "vae")  # what a later training of the denoiser ships
    vae.to(torch.float16).save_pretrained(shipped)


def _train_ink(recipe: Recipe, args: argparse.Namespace) -> None:
    """The second model: the shipped one's denoiser, fine-tuned to ink."""
    start = args.start or ASSETS / "emoji"
    unet = denoiser.restyle(
        start,
        ink.STYLE,
        _schedule(recipe.ink, args),
        args.work / "ink",
        batch=recipe.denoiser_batch,
        per_thing=recipe.renderings,
    )
    export.export_restyled(unet, start, ASSETS / "ink", export.ABOUT_INK)


TRAIN = {
    "autoencoder": _train_autoencoder,
    "scorer": _train_scorer,
    "denoiser": _train_denoiser,
    "decoder": _train_decoder,
    "ink": _train_ink,
}


def _autoencoder(args: argparse.Namespace) -> AutoencoderKL:
    """The one that was trained here, or that of the pipeline to begin with."""
    trained = args.work / "vae"
    folder = trained if trained.exists() or args.start is None else args.start / "vae"
    return AutoencoderKL.from_pretrained(folder, dtype=torch.float32)


def _schedule(schedule: Schedule, args: argparse.Namespace) -> Schedule:
    return dataclasses.replace(schedule, steps=args.steps) if args.steps else schedule


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m studio.builtin", description=__doc__)
    parser.add_argument("action", choices=("train", "measure", "datasets"))
    parser.add_argument("--part", choices=("all", *PARTS), default="all", help="which of the trainings")
    parser.add_argument("--budget", choices=tuple(RECIPES), default="gpu" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, help="train to this step instead of the recipe's last")
    parser.add_argument("--work", type=Path, default=Path("outputs/builtin"), help="checkpoints and loss logs")
    parser.add_argument(
        "--start",
        type=Path,
        help="weights of the same shapes to begin with: an autoencoder's folder for the autoencoder, a CLIP's for the "
        "scorer, a pipeline's for denoiser, decoder and ink (the shipped one, when it is not said)",
    )
    parser.add_argument("--model", choices=tuple(MEASURE), default="emoji", help="measure: which of the models")
    parser.add_argument("--card", action="store_true", help="measure: write the model cards and the contact sheet too")
    return parser


if __name__ == "__main__":
    main()
