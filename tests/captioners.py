"""BLIP and Florence-2 with random tiny weights and processors of their own, as folders of transformers."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import (
    BartConfig,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessorPil,
    BlipProcessor,
    CLIPImageProcessorPil,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    PreTrainedTokenizerFast,
)

WORDS = ("a", "red", "blue", "fox", "penguin", "in", "the", "snow", "What", "does", "image", "describe?")
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
SIDE = 32


def _tokenizer() -> PreTrainedTokenizerFast:
    core = Tokenizer(WordLevel({word: i for i, word in enumerate((*SPECIAL, *WORDS))}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
        model_max_length=64,
    )


def save_tiny_blip(folder: Path) -> Path:
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    small["projection_dim"] = 16
    count = len(SPECIAL) + len(WORDS)
    text = {"vocab_size": count, "encoder_hidden_size": 16, "bos_token_id": 1, "eos_token_id": 2, "sep_token_id": 2}
    config = BlipConfig(
        text_config={**small, **text, "pad_token_id": 0, "max_position_embeddings": 64},
        vision_config={**small, "image_size": SIDE, "patch_size": 8, "initializer_range": 0.5},
        projection_dim=16,
    )
    model = BlipForConditionalGeneration(config)
    _spread(model)
    model.save_pretrained(folder)
    BlipProcessor(BlipImageProcessorPil(size={"height": SIDE, "width": SIDE}), _tokenizer()).save_pretrained(folder)
    return folder


def save_tiny_florence(folder: Path) -> Path:
    """32 x 32 pixels become a grid of 1 x 1, and with its mean two tokens."""
    torch.manual_seed(0)
    vision = {"embed_dim": (8, 8, 8, 8), "num_heads": (2,) * 4, "num_groups": (2,) * 4, "depths": (1,) * 4}
    text = BartConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=128,
        bos_token_id=1,
        pad_token_id=0,
        eos_token_id=2,
        decoder_start_token_id=2,
        forced_eos_token_id=2,
    )
    config = Florence2Config(
        text_config=text.to_dict(),
        vision_config={**vision, "projection_dim": 16, "window_size": 2},
        image_token_id=SPECIAL.index("<image>"),
    )
    model = Florence2ForConditionalGeneration(config)
    _spread(model)
    model.save_pretrained(folder)
    images = CLIPImageProcessorPil(size={"height": SIDE, "width": SIDE}, do_center_crop=False, image_seq_length=2)
    Florence2Processor(images, _tokenizer()).save_pretrained(folder)
    return folder


def _spread(model: torch.nn.Module) -> None:
    """Weights so far from zero that another picture gives other words."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.6)
            elif "bias" in name:
                parameter.normal_(0, 0.3)
