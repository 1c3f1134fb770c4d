"""The word-level tokenizer and the small text encoder that the built-in models share in shape."""

from __future__ import annotations

from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import CLIPTextConfig, PreTrainedTokenizerFast

MAX_TOKENS = 16
# eos must not be 2: transformers' CLIP takes that id for a sign of an old config and pools at the largest id instead.
SPECIAL = ("<pad>", "<bos>", "<unk>", "<eos>")


def build_tokenizer(words: list[str]) -> PreTrainedTokenizerFast:
    """One token per known word, everything else ``<unk>``; 16 tokens, padded as Stable Diffusion expects."""
    ids = {word: index for index, word in enumerate((*SPECIAL, *words))}
    core = Tokenizer(WordLevel(ids, unk_token="<unk>"))
    core.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(",", "isolated")]
    )
    core.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", ids["<bos>"]), ("<eos>", ids["<eos>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<bos>",
        unk_token="<unk>",
        eos_token="<eos>",
        model_max_length=MAX_TOKENS,
        padding_side="right",
    )


def text_config(vocabulary_size: int, width: int, layers: int) -> CLIPTextConfig:
    """A CLIP text encoder of ``width`` with 4 heads, its special ids those of ``build_tokenizer``."""
    return CLIPTextConfig(
        vocab_size=vocabulary_size + len(SPECIAL),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        projection_dim=128,
        pad_token_id=SPECIAL.index("<pad>"),
        bos_token_id=SPECIAL.index("<bos>"),
        eos_token_id=SPECIAL.index("<eos>"),
    )
