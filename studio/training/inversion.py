"""Textual inversion (Gal et al. 2022, arXiv 2208.01618): new words, of which the vectors are all that learns.

For the time of a run tokenizers give way to copies that know the words, and the encoders' tables of vectors to tables
that have rows of their own behind the old ones. Nothing of the network is written to: it is put back, bit for bit.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTextModel

from studio.errors import RequestError, shortened
from studio.models.networks import Network, tokenized
from studio.training.export import Tensors, write
from studio.training.injecting import TEXT_PARTS, uncompiled
from studio.training.request import TrainRequest

FAMILIES = ("sd", "sdxl")  # those whose embeddings diffusers loads
ALONE = "emb_params"  # kohya's name for the vectors of an only encoder
KEYS: Mapping[str, str] = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}
FRAME = 2  # tokens that begin and end every prompt
OLD_CONFIG = 2  # as the id of a text's end in a config, this makes transformers pool at the largest id instead


class LongerTable(nn.Module):
    """An embedding with more rows: ids from ``first`` on are the learned ``vectors`` (n x width)."""

    def __init__(self, table: nn.Embedding, first: int, vectors: Tensor) -> None:
        super().__init__()
        self.table, self.first = table, first
        self.vectors = nn.Parameter(vectors.detach().float().clone())

    def forward(self, ids: Tensor) -> Tensor:
        """ids (any shape) -> the same x width. Also of prompts without the words it hangs on the vectors, by zeros."""
        new = ids >= self.first
        old = self.table(ids.masked_fill(new, 0))
        rows = F.embedding((ids - self.first).clamp(min=0), self.vectors).to(old.dtype)
        return torch.where(new[..., None], rows, old)


class Speller:
    """A copy of a tokenizer that knows the new words, and reads the first of them as all in a row."""

    def __init__(self, tokenizer: Any, words: Sequence[str]) -> None:
        self.tokenizer = copy.deepcopy(tokenizer)
        self.tokenizer.add_tokens(list(words))  # as diffusers does, so that the ids are the same
        self.model_max_length = tokenizer.model_max_length
        self._trigger = re.compile(rf"(?<!\w){re.escape(words[0])}(?!\w)", re.IGNORECASE)
        self._row = " ".join(words)

    def __call__(self, prompts: Sequence[str], **settings: Any) -> Any:
        return self.tokenizer([self._trigger.sub(lambda found: self._row, prompt) for prompt in prompts], **settings)


@dataclass(frozen=True)
class Words:
    """New words in a network; ``tables`` by the encoders' names."""

    words: tuple[str, ...]
    tables: Mapping[str, LongerTable]

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """What learns, by "<part>.vectors"."""
        return {f"{part}.vectors": table.vectors for part, table in self.tables.items()}

    def wear(self, scales: Mapping[str, float]) -> None:
        """There is one thing that learns, always."""

    def wearing(self, scales: Mapping[str, float]) -> AbstractContextManager[None]:
        """There is one thing that learns, always."""
        return nullcontext()


@dataclass(frozen=True)
class Embedding:
    """Learned words, off their network: n x width of each encoder, float32 on the CPU."""

    words: tuple[str, ...]
    parts: Mapping[str, Tensor]

    @property
    def kohya(self) -> Tensors:
        """By the names that A1111, ComfyUI and kohya's trainer know."""
        if len(self.parts) == 1:
            return {ALONE: next(iter(self.parts.values()))}
        return {KEYS[part]: vectors for part, vectors in self.parts.items()}

    def save(self, folder: Path, name: str, notes: Mapping[str, str]) -> dict[str, str]:
        """Write its files into ``folder``; their names there, by whose names are inside: kohya and diffusers.

        diffusers' ``load_textual_inversion`` takes the word from the only key of a file. SDXL's two tables are given
        to it one by one, so that one file serves all.
        """
        kohya = f"{name}.safetensors"
        self.save_kohya(folder / kohya, notes)
        if len(self.parts) > 1:
            return {"kohya": kohya, "diffusers": kohya}
        diffusers = f"{name}-diffusers.safetensors"
        write(folder / diffusers, {self.words[0]: next(iter(self.parts.values()))}, notes)
        return {"kohya": kohya, "diffusers": diffusers}

    def save_kohya(self, path: Path, notes: Mapping[str, str]) -> None:
        """What A1111 and ComfyUI read; the file's name is their name of the word."""
        write(path, self.kohya, notes)


def words_of(request: TrainRequest) -> tuple[str, ...]:
    """The trigger word, and one more for each further vector, named as diffusers' ``load_textual_inversion`` does."""
    return (request.trigger, *(f"{request.trigger}_{index}" for index in range(1, request.vectors)))


@contextmanager
def spelled(network: Network, request: TrainRequest) -> Iterator[Words]:
    """New words in the network's tokenizers and CLIP encoders; their vectors are float32 whatever the network's are.

    Raises RequestError for a family that no embedding can be loaded into, for words that the network has already, and
    for an initializer that it does not know.
    """
    if network.family not in FAMILIES:
        raise RequestError(
            f"method: embeddings for {network.name} are read by no other program; choose text_to_image, or a model of "
            "SD 1.x, 2.x or SDXL.",
            field="method",
        )
    words = words_of(request)
    encoders = [part for part in TEXT_PARTS if part in network.parts]
    tokenizers = {part: network.parts[tokenizer_of(part)] for part in encoders}
    for tokenizer in tokenizers.values():
        _check_words(words, tokenizer)
    tables = {part: _table(network.parts[part], tokenizers[part], request) for part in encoders}
    with uncompiled(network), ExitStack() as undo:
        for part, table in tables.items():
            undo.enter_context(_worn(network, part, table, Speller(tokenizers[part], words)))
        yield Words(words, tables)


def check_room(words: Words, network: Network, captions: Sequence[str]) -> None:
    """Raises RequestError for captions that are so long that some of the word is cut off, and would never learn."""
    for part in words.tables:
        speller = network.parts[tokenizer_of(part)]
        last = speller.tokenizer.convert_tokens_to_ids(words.words[-1])
        read = zip(captions, tokenized(speller, captions).input_ids.tolist(), strict=True)
        cut = [caption for caption, ids in read if last not in ids]
        if cut:
            raise RequestError(
                f"vectors: with {len(words.words)} the word is cut off in {len(cut)} captions, such as "
                f"{shortened(cut[0])!r}; give fewer, or shorten captions.",
                field="vectors",
            )


def taken(words: Words) -> Embedding:
    """The words as they are in the network at this moment, copied."""
    vectors = {part: table.vectors.detach().float().cpu().clone() for part, table in words.tables.items()}
    return Embedding(words.words, vectors)


def tokenizer_of(part: str) -> str:
    """The name of an encoder's tokenizer among a network's parts."""
    return part.replace("text_encoder", "tokenizer")


@contextmanager
def _worn(network: Network, part: str, table: LongerTable, speller: Speller) -> Iterator[None]:
    """One encoder and its tokenizer with the new words, until the block ends."""
    encoder, name = network.parts[part], tokenizer_of(part)
    pooling = next(module for module in encoder.modules() if isinstance(module, CLIPTextModel))
    before, end = network.parts[name], pooling.eos_token_id
    try:
        network.parts[name] = speller
        encoder.set_input_embeddings(table)
        if end == OLD_CONFIG:  # the new words have the largest ids, and the pooled vector is of the text's end
            pooling.eos_token_id = speller.tokenizer.eos_token_id
        yield
    finally:
        network.parts[name], pooling.eos_token_id = before, end
        encoder.set_input_embeddings(table.table)


def _table(encoder: nn.Module, tokenizer: Any, request: TrainRequest) -> LongerTable:
    """An encoder's table with the vectors as they begin: the initializer's, in turns, or the mean of all."""
    table = encoder.get_input_embeddings()
    ids = _initial_ids(tokenizer, request)
    weights = table.weight.detach().float()
    rows = weights[[ids[index % len(ids)] for index in range(request.vectors)]] if ids else weights.mean(0)[None]
    return LongerTable(table, len(tokenizer), rows.expand(request.vectors, -1).to(encoder.device))


def _initial_ids(tokenizer: Any, request: TrainRequest) -> list[int]:
    said = request.initializer.strip()
    found = tokenizer(said, add_special_tokens=False).input_ids if said else []
    if tokenizer.unk_token_id in found:
        unknown = [word for word in said.split() if tokenizer.unk_token_id in tokenizer(word).input_ids]
        raise RequestError(
            f"initializer: the model does not know {(unknown or [said])[0]!r}; name what it draws already, or leave it "
            "empty.",
            field="initializer",
        )
    if len(found) > request.vectors:
        raise RequestError(
            f"initializer: these are {len(found)} tokens for {request.vectors} vectors; raise vectors, or name less.",
            field="initializer",
        )
    return found


def _check_words(words: Sequence[str], tokenizer: Any) -> None:
    known = tokenizer.get_vocab()
    taken = next((word for word in words if word in known), None)
    if taken is not None:
        raise RequestError(
            f"trigger: the model has the word {taken!r} already; choose a new one, such as <{words[0].strip('<>')}>.",
            field="trigger",
        )
    room = tokenizer.model_max_length - FRAME
    if len(words) > room:
        raise RequestError(f"vectors: a prompt of this model has room for {room}; give fewer.", field="vectors")
