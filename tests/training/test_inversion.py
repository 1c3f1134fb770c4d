"""Textual inversion: the new words' vectors are all that learns, and other programs read them as they were."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPTextModel

from studio import requests, training
from studio.builtin.words import SPECIAL, text_config
from studio.errors import Cancelled, RequestError
from studio.models.bpe import clip_tokenizer
from studio.models.store import ModelStore
from studio.training import checkpoints
from studio.training.engine import Training
from studio.training.inversion import LongerTable, Speller, spelled, words_of
from studio.training.learning import SEATS
from studio.training.methods import METHODS
from studio.training.preflight import check, headline
from studio.training.recipe import read
from studio.training.request import TrainRequest
from tests.training.asked import asked, save_set
from tests.training.test_resume import assert_same, run, state

PROMPTS = ["a red duckrabbit", "a duckrabbit and a fox", "a blue penguin"]
WORD = {"method": "textual_inversion", "trigger": "duckrabbit"}


def asked_for(data, **changes) -> TrainRequest:
    return asked(data, **WORD | {"vectors": 2} | changes)


@pytest.fixture(scope="module")
def folders(assets, tmp_path_factory):
    """A folder with a tiny SD that predicts v, one with CLIP's own tokenizer, an SDXL and an SD 3."""
    from tests.tiny import save_tiny_pipeline, save_tiny_sd3, save_tiny_sdxl

    root = tmp_path_factory.mktemp("families")
    save_tiny_pipeline(root / "v", "v_prediction")
    save_bpe(root / "v", root / "bpe", clip_tokenizer(assets / "configs" / "clip" / "merges.txt"))
    save_tiny_sdxl(root / "sdxl")
    save_tiny_sd3(root / "sd3", with_t5=False)
    return root


def save_bpe(tiny, folder, tokenizer):
    """The tiny pipeline with the tokens of real Stable Diffusion, 77 to a prompt."""
    torch.manual_seed(1)
    pipeline = StableDiffusionPipeline.from_pretrained(tiny, local_files_only=True, safety_checker=None)
    config = text_config(len(tokenizer) - len(SPECIAL), width=16, layers=1)
    config.max_position_embeddings, config.eos_token_id = tokenizer.model_max_length, tokenizer.eos_token_id
    pipeline.register_modules(tokenizer=tokenizer, text_encoder=CLIPTextModel(config))
    pipeline.save_pretrained(folder)


@pytest.fixture(scope="module")
def store(assets, folders):
    return ModelStore(assets, folders, device="cpu")


def encoded(network, prompts=PROMPTS):
    with torch.no_grad():
        found = network.encode_prompts(prompts)
    return {"embeds": found.embeds, **found.extra}


def weights(network):
    return {
        f"{part}.{name}": value.clone()
        for part, module in network.adaptable.items()
        for name, value in module.state_dict().items()
    }


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[key]) for key, value in one.items())


@pytest.fixture(scope="module", params=["v", "bpe", "sdxl"])
def learned(request, pictures, store, tmp_path_factory):
    """(request, network, its weights and conditions before, conditions with the learned words, result, folder)"""
    asked_this, seen = asked_for(pictures, model=request.param, steps=3), {}
    with store.lease(request.param) as network:
        before, bare = weights(network), encoded(network)
        tokenizers = {name: part for name, part in network.parts.items() if name.startswith("tokenizer")}
    taken = Training._result

    def spy(self, stopped):
        seen["live"] = encoded(self.network)
        seen["learns"] = [
            name
            for part in self.network.adaptable.values()
            for name, parameter in part.named_parameters()
            if parameter.requires_grad
        ]
        return taken(self, stopped)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "_result", spy)
        result = training.run(asked_this, store)
    folder = tmp_path_factory.mktemp(request.param)
    result.save(folder)
    return asked_this, network, (before, bare, tokenizers), seen, result, folder


# -- in the network


def test_only_the_new_words_learn_and_they_do(learned):
    asked_this, _, (_, bare, _), seen, result, _ = learned
    assert all(name.endswith("token_embedding.vectors") for name in seen["learns"])
    assert len(seen["learns"]) == len(result.last.parts) == (2 if asked_this.model == "sdxl" else 1)
    assert all(0 < point.loss < 100 for point in result.points)
    for name, rows in seen["live"].items():
        assert (rows[:2] - bare[name][:2]).abs().max() > 1e-3
        assert torch.equal(rows[2], bare[name][2])


def test_the_network_is_as_it_was_when_the_run_ends(learned):
    _, network, (before, bare, tokenizers), _, _, _ = learned
    assert_equal(weights(network), before)
    assert_equal(encoded(network), bare)
    assert all(network.parts[name] is tokenizer for name, tokenizer in tokenizers.items())
    for part in network.adaptable.values():
        assert not any(parameter.requires_grad for parameter in part.parameters())


@pytest.mark.parametrize("error", [Cancelled, ValueError])
@pytest.mark.parametrize("at", [0, 1])
def test_the_network_is_as_it_was_when_the_run_is_stopped_or_fails(error, at, pictures, store):
    def on_step(step):
        if step.index == at and (step.note.startswith("loss") or (at == 0 and "Drawing" in step.note)):
            raise error

    with store.lease("sdxl") as network:
        before, parts, bare = weights(network), dict(network.parts), encoded(network)
    with pytest.raises(error):
        training.run(
            asked_for(pictures, model="sdxl", sample_prompts=("a fox",), sample_steps=1), store, on_step=on_step
        )
    assert_equal(weights(network), before)
    assert_equal(encoded(network), bare)
    assert network.parts.keys() == parts.keys()
    assert all(network.parts[name] is part for name, part in parts.items())


def test_a_longer_table_reads_old_rows_as_they_are_and_gives_gradients_to_the_new_ones_alone():
    table = nn.Embedding.from_pretrained(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    longer = LongerTable(table, 2, torch.tensor([[5.0, 6.0], [7.0, 8.0]]))
    found = longer(torch.tensor([[0, 3, 1], [2, 3, 0]]))
    assert found.tolist() == [[[1, 2], [7, 8], [3, 4]], [[5, 6], [7, 8], [1, 2]]]
    found.sum().backward()
    assert longer.vectors.grad.tolist() == [[1, 1], [2, 2]]
    longer.vectors.grad = None
    longer(torch.tensor([0, 1])).sum().backward()  # a caption that lost the word still has a way back
    assert longer.vectors.grad.tolist() == [[0, 0], [0, 0]]
    assert table.weight.grad is None


def test_vectors_begin_as_the_initializer_in_turns_or_as_the_mean_of_all(pictures, store):
    with store.lease("sdxl") as network:
        for part, name in (("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2")):
            weight = network.parts[part].get_input_embeddings().weight
            red, fox = (network.parts[name].convert_tokens_to_ids(word) for word in ("red", "fox"))
            with spelled(network, asked_for(pictures, vectors=3, initializer="Red fox")) as words:
                assert torch.equal(words.tables[part].vectors, weight[[red, fox, red]])
            with spelled(network, asked_for(pictures)) as words:
                assert torch.equal(words.tables[part].vectors, weight.mean(0).expand(2, -1))


def test_pooling_stays_at_the_end_of_the_text_where_a_config_names_it_wrongly(pictures, store):
    """Many SDXL folders say that texts end with id 2, and transformers then pools at the largest id: the new word."""
    request = asked_for(pictures, initializer="fox")
    with store.lease("sdxl") as network:
        pooling = network.parts["text_encoder_2"].text_model
        with spelled(network, request):
            right = encoded(network)
        try:
            pooling.eos_token_id = 2
            with spelled(network, request):
                assert_equal(encoded(network), right)
            assert pooling.eos_token_id == 2
        finally:
            pooling.eos_token_id = 3


# -- files


def test_diffusers_reads_its_file_and_encodes_as_the_network_did(learned, folders):
    asked_this, _, _, seen, _, folder = learned
    if asked_this.model == "sdxl":
        pipeline = StableDiffusionXLPipeline.from_pretrained(folders / "sdxl", local_files_only=True)
        tensors = load_file(folder / "duckrabbit.safetensors")
        for key, part in (("clip_l", ""), ("clip_g", "_2")):
            pipeline.load_textual_inversion(
                tensors[key],
                token="duckrabbit",
                text_encoder=pipeline.components[f"text_encoder{part}"],
                tokenizer=pipeline.components[f"tokenizer{part}"],
            )
        embeds, _, pooled, _ = pipeline.encode_prompt(PROMPTS, device="cpu", do_classifier_free_guidance=False)
        found = {"embeds": embeds, "pooled": pooled}
    else:
        place = folders / asked_this.model
        pipeline = StableDiffusionPipeline.from_pretrained(place, local_files_only=True, safety_checker=None)
        pipeline.load_textual_inversion(folder / "duckrabbit-diffusers.safetensors", local_files_only=True)
        found = {"embeds": pipeline.encode_prompt(PROMPTS, "cpu", 1, False)[0]}
    assert_equal(found, seen["live"])


def test_the_other_file_has_the_names_that_a1111_and_comfyui_read(learned):
    asked_this, _, _, _, result, folder = learned
    found = load_file(folder / "duckrabbit.safetensors")
    assert set(found) == ({"clip_l", "clip_g"} if asked_this.model == "sdxl" else {"emb_params"})
    assert all(value.shape == (2, 16) and value.dtype == torch.float32 for value in found.values())
    assert_equal(found, result.last.kohya)


def test_the_header_says_what_it_is_and_holds_the_request(learned):
    asked_this, _, _, _, _, folder = learned
    with safe_open(folder / "duckrabbit.safetensors", "pt") as file:
        notes = file.metadata()
    family = "stable-diffusion-xl-v1-base" if asked_this.model == "sdxl" else "stable-diffusion-v1"
    assert notes["modelspec.architecture"] == f"{family}/textual-inversion"
    assert notes["modelspec.trigger_phrase"] == "duckrabbit"
    assert not any(key.startswith("ss_network") for key in notes)
    assert TrainRequest(**read(folder / "duckrabbit.safetensors")["request"]) == asked_this
    assert json.loads((folder / "curve.json").read_text())[-1]["step"] == 3


def test_an_only_vector_is_loaded_by_diffusers_as_well(pictures, store, folders, tmp_path):
    result = training.run(asked_for(pictures, model="v", vectors=1, trigger="<sks>"), store)
    files = result.save(tmp_path)["files"]["last"]
    pipeline = StableDiffusionPipeline.from_pretrained(folders / "v", local_files_only=True, safety_checker=None)
    pipeline.load_textual_inversion(tmp_path / files["diffusers"], local_files_only=True)
    row = pipeline.text_encoder.get_input_embeddings().weight[pipeline.tokenizer.convert_tokens_to_ids("<sks>")]
    assert torch.equal(row, result.last.kohya["emb_params"][0])


# -- the run


def test_stopped_and_resumed_is_bit_for_bit_the_run_that_never_stopped(pictures, store, tmp_path):
    request = asked_for(
        pictures,
        model="sdxl",
        initializer="fox",
        batch_size=3,
        accumulation=2,
        ema=0.9,
        flip=True,
        shuffle_tags=True,
        schedule="cosine",
        validation_share=0.25,
        validate_every=2,
        steps=4,
    )
    whole = run(request, store, tmp_path / "whole")
    run(request, store, tmp_path / "first", stop_after=1)
    again = request.model_copy(update={"resume": str(tmp_path / "first")})
    run(again, store, tmp_path / "second", stop_after=3)
    last = run(request.model_copy(update={"resume": str(tmp_path / "second")}), store, tmp_path / "third")
    assert_same(state(tmp_path / "whole"), state(tmp_path / "third"))
    assert_equal(last.last.kohya, whole.last.kohya)
    kept = tmp_path / "third" / checkpoints.PLACE / "duckrabbit-00000004.safetensors"
    assert_equal(load_file(kept), whole.last.kohya)


def test_another_initializer_is_another_run(pictures, store, tmp_path):
    request = asked_for(pictures, model="v", steps=3, initializer="fox")
    run(request, store, tmp_path / "first", stop_after=1)
    with pytest.raises(RequestError, match="initializer: was 'fox' in the run to go on from") as refused:
        run(request.model_copy(update={"resume": str(tmp_path / "first"), "initializer": "red"}), store)
    assert refused.value.field == "initializer"


def test_caches_change_nothing_and_samples_show_what_was_learned(pictures, store):
    request = asked_for(pictures, model="v", sample_prompts=("a duckrabbit", "a fox"), sample_steps=2)
    result = training.run(request, store)
    uncached = training.run(request.model_copy(update={"cache": "off"}), store)
    assert [point.loss for point in result.points] == pytest.approx([point.loss for point in uncached.points], abs=1e-5)
    first, last = result.journal.samples[0], result.journal.samples[2]
    assert first[0].tobytes() != last[0].tobytes()
    assert first[1].tobytes() == last[1].tobytes()


def test_the_built_in_model_learns_a_word_that_it_did_not_know(pictures, models):
    request = asked_for(pictures, model="builtin:emoji", initializer="duck rabbit", resolution=64)
    with models.lease("builtin:emoji") as network:
        bare = encoded(network, ["a duckrabbit", "a qwertz"])["embeds"]
        assert torch.equal(bare[0], bare[1])  # unknown words are one
        with spelled(network, request):
            both = encoded(network, ["a duckrabbit", "a duck rabbit", "a qwertz"])["embeds"]
            assert torch.equal(both[0], both[1])
            assert torch.equal(both[2], bare[1])
    result = training.run(request, models)
    assert result.last.kohya["emb_params"].shape == (2, 192)
    assert result.points[-1].step == 2
    with models.lease("builtin:emoji") as network:
        assert torch.equal(encoded(network, ["a duckrabbit", "a qwertz"])["embeds"], bare)


@pytest.mark.slow
def test_the_built_in_model_draws_the_mascot_better_with_the_learned_word(models):
    request = TrainRequest(
        **WORD,
        vectors=4,
        batch_size=4,
        steps=100,
        learning_rate=5e-3,
        validation_share=0.15,
        validate_every=50,
    )
    result = training.run(request, models)
    values = [point.validation for point in result.points if point.validation is not None]
    assert result.before > values[0] > values[1]
    assert values[-1] < 0.93 * result.before


# -- words


def test_the_word_is_read_as_all_of_its_vectors_as_diffusers_reads_it(assets):
    plain = clip_tokenizer(assets / "configs" / "clip" / "merges.txt")
    words = words_of(asked_for("x", trigger="<duck>", vectors=3))
    assert words == ("<duck>", "<duck>_1", "<duck>_2")
    speller = Speller(plain, words)
    pipeline = object.__new__(StableDiffusionPipeline)
    for prompt in ("a <duck> on a hill", "<duck>", "photo of <duck>, in the style of <duck>", "a duck"):
        theirs = speller.tokenizer(pipeline.maybe_convert_prompt(prompt, speller.tokenizer)).input_ids
        assert speller([prompt]).input_ids == [theirs]
    assert speller(["a <DUCK>"]).input_ids == speller(["a <duck>"]).input_ids
    assert len(plain) == 49408
    assert max(speller(["a <duck>"]).input_ids[0]) == 49410


# -- settings


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"trigger": ""}, "trigger", "needs one new word, such as <sks>"),
        ({"trigger": "two words"}, "trigger", "needs one new word"),
        ({"rank": 4}, "rank", "Textual inversion has no use for this; leave it at 8"),
        ({"adapter": "loha"}, "adapter", "leave it at 'lora'"),
        ({"targets": "all"}, "targets", "leave it at 'attention'"),
        ({"alpha": 4.0}, "alpha", "leave it empty"),
        ({"text_encoder": True}, "text_encoder", "leave it at False"),
        ({"caption_dropout": 0.1}, "caption_dropout", "leave it at 0.0"),
        ({"earlier": ["a.safetensors"]}, "earlier", "leave it empty"),
        ({"vectors": 0}, "vectors", "must be at least 1"),
        ({"method": "text_to_image", "vectors": 2}, "vectors", "only Textual inversion has this; leave it at 1"),
        ({"method": "text_to_image", "initializer": "fox"}, "initializer", "only Textual inversion has this"),
    ],
)
def test_settings_that_mean_nothing_are_refused_by_name(changes, field, words):
    with pytest.raises(RequestError) as refused:
        check(requests.parse(TrainRequest, {**WORD, **changes}))
    assert refused.value.field == field
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"model": "sd3"}, "method", "method: embeddings for sd3 are read by no other program; choose text_to_image"),
        ({"trigger": "fox"}, "trigger", "the model has the word 'fox' already; choose a new one, such as <fox>"),
        ({"initializer": "red elk"}, "initializer", "the model does not know 'elk'"),
        ({"initializer": "a red fox"}, "initializer", "these are 3 tokens for 2 vectors; raise vectors"),
        ({"vectors": 15}, "vectors", "a prompt of this model has room for 14"),
    ],
)
def test_what_the_model_cannot_take_is_a_sentence_and_leaves_it_as_it_was(changes, field, words, pictures, store):
    request = asked_for(pictures, **{"model": "v"} | changes)
    with store.lease(request.model) as network:
        before = dict(network.parts)
    with pytest.raises(RequestError) as refused:
        training.run(request, store)
    assert refused.value.field == field
    assert words in str(refused.value)
    assert network.parts == before


def test_a_word_that_captions_have_no_room_for_is_refused(store, tmp_path):
    data = save_set(tmp_path / "set", count=3)
    (data / "picture-1.txt").write_text("a red duckrabbit")
    training.run(asked_for(data, model="v", vectors=12, steps=1), store)
    words = "vectors: with 13 the word is cut off in 1 captions, such as 'a red duckrabbit'; give fewer, or shorten"
    with pytest.raises(RequestError, match=words) as refused:
        training.run(asked_for(data, model="v", vectors=13, steps=1), store)
    assert refused.value.field == "vectors"


def test_every_method_is_in_both_tables_and_names_settings_that_there_are():
    fields = TrainRequest.model_fields
    assert set(METHODS) == set(SEATS) == set(fields["method"].annotation.__args__)
    for way in METHODS.values():
        assert way.title
        assert way.help.endswith(".")
        assert way.reference
        assert {*way.own, *way.without} <= set(fields)
    assert headline(TrainRequest(**WORD)) == "Textual inversion of duckrabbit"
