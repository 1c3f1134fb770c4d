"""CLIP's byte-pair tokenizer, built from its list of merges alone."""

from __future__ import annotations

from pathlib import Path

from transformers import CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
MAX_TOKENS = 77


def clip_tokenizer(merges_file: Path, pad: str = END) -> CLIPTokenizer:
    """The tokenizer of every Stable Diffusion's CLIP encoders; those trained by OpenCLIP pad with ``!``.

    The vocabulary is the bytes, the bytes at the end of a word, one token per merge, start and end (49,408 in all).
    """
    lines = merges_file.read_text(encoding="utf-8").splitlines()
    merges = [tuple(line.split()) for line in lines if line and not line.startswith("#version")]
    characters = byte_characters()
    tokens = [*characters, *(character + "</w>" for character in characters), *map("".join, merges), START, END]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, pad_token=pad, model_max_length=MAX_TOKENS)


def byte_characters() -> list[str]:
    """A printable character per byte, in the vocabulary's order (byte-level BPE, Radford et al. 2019).

    Printable bytes stand for themselves and come first; the others follow as the characters from 256 on.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = 256 - len(printable)
    return [chr(code) for code in printable] + [chr(256 + i) for i in range(others)]
