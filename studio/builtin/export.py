"""From trained networks to the folders that ship: fp16 safetensors in diffusers' and transformers' own layouts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPModel, PreTrainedTokenizerFast

from studio.builtin.autoencoder import renderings, to_signed
from studio.builtin.denoiser import build_scheduler
from studio.builtin.world import THINGS_FILE, load_things
from studio.models.networks import PREVIEW_FILE

PREVIEW_SCALE = 4
ABOUT = {
    "title": "Emoji 128",
    "family": "Stable Diffusion 1/2",
    "about": "200 things, trained by this project, 128 px, ready at once",
}
ABOUT_INK = {**ABOUT, "title": "Ink 128", "about": "the same 200 things in ink on paper; merges with Emoji 128"}


def export_pipeline(vae: AutoencoderKL, nets: nn.ModuleDict, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a folder that stock ``StableDiffusionPipeline.from_pretrained`` loads, plus our lists and preview map."""
    preview = fit_preview(vae)
    pipeline = StableDiffusionPipeline(
        vae=vae, unet=nets["unet"], text_encoder=nets["text_encoder"], tokenizer=tokenizer,
        scheduler=build_scheduler(), safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.to("cpu", torch.float16).save_pretrained(folder, safe_serialization=True)
    for config in folder.glob("*/config.json"):  # diffusers notes where a part was loaded from
        kept = {name: value for name, value in json.loads(config.read_text()).items() if name != "_name_or_path"}
        config.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    save_file({name: value.half().contiguous().cpu() for name, value in preview.items()}, folder / PREVIEW_FILE)
    (folder / "things.json").write_text(THINGS_FILE.read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "about.json").write_text(json.dumps(ABOUT, indent=2) + "\n", encoding="utf-8")


def export_restyled(unet: UNet2DConditionModel, model: Path, folder: Path, about: dict[str, str]) -> None:
    """Write ``model``'s folder again with another denoiser; the rest of the pipeline is the same, byte for byte."""
    shutil.copytree(model, folder, ignore=shutil.ignore_patterns("unet", "README.md", "*.png"), dirs_exist_ok=True)
    unet.to("cpu", torch.float16).save_pretrained(folder / "unet", safe_serialization=True)
    shutil.copyfile(model / "unet" / "config.json", folder / "unet" / "config.json")
    (folder / "about.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def export_scorer(net: CLIPModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the CLIPModel, its tokenizer and the mean and spread its pictures are normalised with."""
    with torch.no_grad():
        net.logit_scale.clamp_(max=torch.tensor(100.0).log())
    net.to("cpu", torch.float16).save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    pictures = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": 128, "width": 128}}
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures, indent=2) + "\n", encoding="utf-8")


@torch.no_grad()
def fit_preview(vae: AutoencoderKL, pictures: int = 400) -> dict[str, Tensor]:
    """Least squares from each 3 x 3 neighbourhood of codes to its 4 x 4 pixels of the picture at 64 px."""
    x = to_signed(renderings(load_things(), pictures, seed=4242)).to(vae.device)
    codes = torch.cat([vae.encode(part).latent_dist.mean for part in x.split(50)]).cpu() * vae.config.scaling_factor
    small = F.interpolate(x.cpu(), scale_factor=PREVIEW_SCALE / 8, mode="area")
    inputs = F.unfold(codes, 3, padding=1).transpose(1, 2).flatten(0, 1)
    targets = F.pixel_unshuffle(small, PREVIEW_SCALE).flatten(2).transpose(1, 2).flatten(0, 1)
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1)
    solved = torch.linalg.lstsq(inputs, targets).solution
    return {"weight": solved[:-1].T.reshape(-1, codes.shape[1], 3, 3), "bias": solved[-1]}
