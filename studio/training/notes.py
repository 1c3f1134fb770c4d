"""What a LoRA's header says of how it was made: ours, Stability's modelspec, and the keys of kohya's trainer."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from studio.models.networks import Network
from studio.training.kinds import KINDS
from studio.training.methods import METHODS
from studio.training.plan import Plan
from studio.training.preflight import headline, options_of
from studio.training.recipe import KEY, recipe
from studio.training.records import Example
from studio.training.request import TrainRequest

# Family -> modelspec.architecture (its part before "/lora") and kohya's ss_base_model_version.
ARCHITECTURES = {
    "sdxl": ("stable-diffusion-xl-v1-base", "sdxl_base_v1-0"),
    "sd3": ("stable-diffusion-3-medium", "sd3"),
}
WIDTH_OF_SD2 = 1024
TASKS = f"{KEY}.tasks"  # of a joint training: name, pictures, prompt, view and weight of each
PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v"}


def notes(
    request: TrainRequest, network: Network, plan: Plan, examples: Sequence[Example], step: int
) -> dict[str, str]:
    """A file's metadata; every value is a text, and no time is among it, so that the same run makes the same bytes."""
    architecture, version = _family(network)
    size = request.resolution or network.size
    said: dict[str, object] = {
        KEY: json.dumps(recipe(request)),
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.title": headline(request),
        "modelspec.architecture": f"{architecture}/{METHODS[request.method].form}",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.resolution": f"{size}x{size}",
        "modelspec.trigger_phrase": request.trigger or request.instance_prompt,
        "ss_base_model_version": version,
        "ss_sd_model_name": request.model,
        "ss_v2": version.startswith("sd_v2"),
        "ss_steps": step,
        "ss_max_train_steps": plan.steps,
        "ss_num_train_images": plan.pictures,
        "ss_num_reg_images": request.class_pictures,
        "ss_num_batches_per_epoch": plan.batches,
        "ss_num_epochs": round(float(plan.epochs), 2),
        "ss_total_batch_size": request.batch_size * request.accumulation,
        "ss_gradient_accumulation_steps": request.accumulation,
        "ss_learning_rate": request.learning_rate,
        "ss_unet_lr": request.learning_rate,
        "ss_text_encoder_lr": request.text_encoder_learning_rate or request.learning_rate,
        "ss_lr_scheduler": request.schedule,
        "ss_lr_warmup_steps": request.warmup_steps,
        "ss_optimizer": request.optimizer,
        "ss_min_snr_gamma": request.min_snr_gamma,
        "ss_noise_offset": request.noise_offset or None,
        "ss_caption_dropout_rate": request.caption_dropout,
        "ss_prior_loss_weight": request.prior_weight,
        "ss_mixed_precision": request.precision,
        "ss_seed": request.seed,
        "ss_resolution": f"({size}, {size})",
        "ss_enable_bucket": request.buckets,
        "ss_tag_frequency": json.dumps({"pictures": _tags(examples)}),
    }
    if METHODS[request.method].form == "lora":
        said |= _adapter(request)
    if request.tasks:
        said[TASKS] = json.dumps([task.model_dump(mode="json") for task in request.tasks])
    if network.prediction in PREDICTIONS:
        said["modelspec.prediction_type"] = PREDICTIONS[network.prediction]
    return {key: str(value) for key, value in said.items()}


def _adapter(request: TrainRequest) -> dict[str, object]:
    kind = KINDS[request.adapter]
    return {
        "ss_network_module": "networks.lora" if kind.low_rank else "lycoris.kohya",
        "ss_network_dim": request.rank if kind.ranked else "Dynamic",
        "ss_network_alpha": request.scale if kind.ranked else "Dynamic",
        "ss_network_args": json.dumps({"algo": request.adapter, **options_of(request).model_dump()}),
    }


def _family(network: Network) -> tuple[str, str]:
    if network.family in ARCHITECTURES:
        return ARCHITECTURES[network.family]
    if network.denoiser.config.cross_attention_dim == WIDTH_OF_SD2:
        return "stable-diffusion-v2-768-v", "sd_v2_v" if network.prediction == "v_prediction" else "sd_v2"
    return "stable-diffusion-v1", "sd_v1"


def _tags(examples: Sequence[Example], most: int = 200) -> dict[str, int]:
    """How often each part of a caption between commas was seen, the most frequent ones."""
    counts = Counter(tag.strip() for example in examples for tag in example.caption.split(",") if tag.strip())
    return dict(counts.most_common(most))
