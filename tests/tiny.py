"""Real classes with random tiny weights."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PRXPixelPipeline,
    PRXTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers.processors import TemplateProcessing
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Qwen3VLTextConfig,
    Qwen3VLTextModel,
    T5Config,
    T5EncoderModel,
)

from studio.builtin.words import build_tokenizer, text_config

WORDS = ["a", "fox", "penguin", "red", "blue"]
NOISE = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "steps_offset": 1,
}


def tiny_vae(**changes) -> AutoencoderKL:
    settings = {
        "block_out_channels": (8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "norm_num_groups": 4,
        "sample_size": 32,
    }
    return AutoencoderKL(**settings | changes)


def tiny_unet(**changes) -> UNet2DConditionModel:
    settings = {
        "sample_size": 16,
        "layers_per_block": 1,
        "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": 16,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    return UNet2DConditionModel(**settings | changes)


def save_tiny_pipeline(folder: Path, prediction_type: str, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    pipeline = StableDiffusionPipeline(
        vae=tiny_vae(),
        unet=tiny_unet(),
        text_encoder=CLIPTextModel(text_config(len(WORDS), width=16, layers=1)),
        tokenizer=build_tokenizer(WORDS),
        scheduler=DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False, prediction_type=prediction_type),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def save_tiny_sdxl(folder: Path, seed: int = 0) -> Path:
    """32 px, factor 2; the second encoder's pooled vector is 128 wide, the six time ids 8 each."""
    torch.manual_seed(seed)
    text = text_config(len(WORDS), width=16, layers=2)
    pipeline = StableDiffusionXLPipeline(
        vae=tiny_vae(scaling_factor=0.13025),
        unet=tiny_unet(
            cross_attention_dim=32,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + text.projection_dim,
            transformer_layers_per_block=(1, 2),
            use_linear_projection=True,
        ),
        text_encoder=CLIPTextModel(text),
        text_encoder_2=CLIPTextModelWithProjection(text),
        tokenizer=build_tokenizer(WORDS),
        tokenizer_2=build_tokenizer(WORDS),
        scheduler=EulerDiscreteScheduler(**NOISE, timestep_spacing="leading"),
    )
    pipeline.save_pretrained(folder)
    return folder


def save_tiny_sd3(folder: Path, with_t5: bool, seed: int = 0) -> Path:
    """32 px, factor 2, 16 latent channels, patches of 2 x 2 cells."""
    torch.manual_seed(seed)
    text = text_config(len(WORDS), width=16, layers=2)
    t5 = T5Config(vocab_size=32, d_model=48, d_kv=8, d_ff=32, num_layers=1, num_heads=4, feed_forward_proj="gated-gelu")
    pipeline = StableDiffusion3Pipeline(
        vae=tiny_vae(latent_channels=16, scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False),
        transformer=SD3Transformer2DModel(
            sample_size=16,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=48,
            caption_projection_dim=16,
            pooled_projection_dim=2 * text.projection_dim,
            pos_embed_max_size=16,
        ),
        text_encoder=CLIPTextModelWithProjection(text),
        text_encoder_2=CLIPTextModelWithProjection(text),
        text_encoder_3=T5EncoderModel(t5) if with_t5 else None,
        tokenizer=build_tokenizer(WORDS),
        tokenizer_2=build_tokenizer(WORDS),
        tokenizer_3=build_tokenizer(WORDS) if with_t5 else None,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )
    # A fresh SD 3 starts with zeros where it modulates and answers: nothing would depend on anything.
    for parameter in pipeline.transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    pipeline.save_pretrained(folder)
    return folder


def save_tiny_prx(folder: Path, seed: int = 0) -> Path:
    """32 px without an autoencoder, patches of 4 x 4 pixels; like Qwen's, its tokenizer makes nothing of no text."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(WORDS)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A", special_tokens=[])
    text = Qwen3VLTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]},
        pad_token_id=tokenizer.pad_token_id,
    )
    pipeline = PRXPixelPipeline(
        transformer=PRXTransformer2DModel(
            in_channels=3,
            patch_size=4,
            context_in_dim=32,
            hidden_size=32,
            num_heads=2,
            depth=2,
            axes_dim=[8, 8],
            bottleneck_size=16,
            resolution_embeds=True,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        text_encoder=Qwen3VLTextModel(text),
        tokenizer=tokenizer,
        default_sample_size=32,
        prompt_max_tokens=12,
    )
    # A fresh transformer starts with zeros where it modulates: nothing would depend on time or text.
    for parameter in pipeline.transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    pipeline.save_pretrained(folder)
    return folder
