from __future__ import annotations

import io
import pickle
import shutil
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from studio.errors import ModelError, ModelFileError, ModelNotFoundError
from studio.models.files import check_pipeline, read_header


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"w": torch.ones(2, 3), "b": torch.zeros(3, dtype=torch.float16)}, path, metadata={"format": "pt"})
    return path


@pytest.fixture
def pipeline(tiny_pipeline, tmp_path):
    return shutil.copytree(tiny_pipeline, tmp_path / "pipeline")


def test_a_header_names_every_tensor_without_reading_it(weights):
    header = read_header(weights)
    assert header["w"]["shape"] == [2, 3]
    assert set(header) == {"w", "b"}


@pytest.mark.parametrize("keep", [0, 5, 8, 9, 40])
def test_a_truncated_file_says_download_it_again(weights, keep):
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(ModelFileError, match=r"weights.safetensors .*download it again"):
        read_header(weights)


def test_a_file_short_of_its_last_byte_is_truncated(weights):
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ModelFileError, match="truncated"):
        read_header(weights)


def test_a_pickle_under_this_name_is_called_a_pickle(weights):
    weights.write_bytes(pickle.dumps({"w": 1}, protocol=2))
    with pytest.raises(ModelFileError, match="is a pickle"):
        read_header(weights)


def test_a_torch_zip_under_this_name_is_called_a_pickle(weights):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", "x" * 100)
    weights.write_bytes(buffer.getvalue())
    with pytest.raises(ModelFileError, match="is a pickle"):
        read_header(weights)


@pytest.mark.parametrize(
    "header", [b'{"w": 1}', b'{"w": {"shape": 3, "data_offsets": [0, 1]}}', b'{"w": {"shape": []}}']
)
def test_a_header_of_other_json_is_unreadable(tmp_path, header):
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ModelFileError, match="no readable safetensors header"):
        read_header(path)


@pytest.mark.parametrize(
    "header",
    [
        b'{"w":' * 50_000 + b"1" + b"}" * 50_000,
        b'{"__metadata__": ["a"], "w": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]}}',
        b'{"w": {"dtype": "F16", "shape": [3], "data_offsets": [0, 4]}}',
        b'{"w": {"dtype": "F16", "shape": [2], "data_offsets": [4, 8]}}',
        b'{"w": {"dtype": "F16", "shape": [-2], "data_offsets": [0, -4]}}',
        b'{"w": {"dtype": "F16", "shape": ["2"], "data_offsets": [0, 4]}}',
    ],
    ids=lambda header: repr(header[20:60]),
)
def test_a_header_whose_numbers_do_not_fit_together_is_unreadable(tmp_path, header):
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(ModelFileError, match="w.safetensors has no readable safetensors header: download it again"):
        read_header(path)


@pytest.mark.parametrize("length", [0x80, 0x0280, 0x0480])
def test_a_header_whose_length_looks_like_a_pickle_is_still_a_header(tmp_path, length):
    path = tmp_path / "w.safetensors"
    body = b'{"__metadata__":{"a":"' + b"x" * 2000
    header = body[: length - 3] + b'"}}'
    path.write_bytes(length.to_bytes(8, "little") + header)
    assert read_header(path) == {}


def test_a_sound_folder_passes(pipeline):
    assert check_pipeline(pipeline) == "StableDiffusionPipeline"


def test_a_folder_without_an_index_is_no_diffusers_folder(tmp_path):
    with pytest.raises(ModelNotFoundError, match="no model_index.json"):
        check_pipeline(tmp_path)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_missing_part_is_named(pipeline, part):
    shutil.rmtree(pipeline / part)
    with pytest.raises(ModelNotFoundError, match=f"has no {part}"):
        check_pipeline(pipeline)


@pytest.mark.parametrize(
    ("kept", "says"),
    [
        ((), "pipeline has no tokenizer: a complete diffusers folder is needed"),
        (("vocab.json",), "pipeline/tokenizer has no merges.txt: download the missing file"),
        (("merges.txt",), "pipeline/tokenizer has no vocab.json: download the missing file"),
        (("spiece.model",), "pipeline/tokenizer has only spiece.model, .* its tokenizer.json is needed"),
    ],
)
def test_a_tokenizer_that_cannot_be_read_is_named_before_anything_loads(pipeline, kept, says):
    for path in (pipeline / "tokenizer").iterdir():
        path.unlink()
    for name in kept:
        (pipeline / "tokenizer" / name).write_bytes(b"{}")
    with pytest.raises(ModelError, match=says) as refused:
        check_pipeline(pipeline)
    assert refused.value.field == "model"


@pytest.mark.parametrize(
    "kept", [("tokenizer.json",), ("vocab.json", "merges.txt"), ("tokenizer.json", "spiece.model")]
)
def test_a_tokenizer_in_either_of_its_forms_passes(pipeline, kept):
    for path in (pipeline / "tokenizer").iterdir():
        path.unlink()
    for name in kept:
        (pipeline / "tokenizer" / name).write_bytes(b"{}")
    assert check_pipeline(pipeline) == "StableDiffusionPipeline"


def test_a_folder_of_pickles_is_refused(pipeline):
    (pipeline / "vae" / "diffusion_pytorch_model.safetensors").rename(pipeline / "vae" / "diffusion_pytorch_model.bin")
    with pytest.raises(ModelFileError, match=r"only diffusion_pytorch_model.bin, a pickle"):
        check_pipeline(pipeline)


def test_another_pipeline_class_is_refused_by_name(pipeline):
    index = pipeline / "model_index.json"
    index.write_text(index.read_text().replace("StableDiffusionPipeline", "FluxPipeline"))
    with pytest.raises(ModelFileError, match="FluxPipeline"):
        check_pipeline(pipeline)


def test_weights_that_are_cut_short_are_named_with_their_folder_and_part(pipeline):
    weights = pipeline / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    says = f"{pipeline.name}/unet/diffusion_pytorch_model.safetensors is truncated or damaged .*: download it again"
    with pytest.raises(ModelFileError, match=says):
        check_pipeline(pipeline)


def test_a_missing_scheduler_says_which_file_to_put_there(pipeline):
    shutil.rmtree(pipeline / "scheduler")
    with pytest.raises(ModelNotFoundError, match="has no scheduler.*put the model's scheduler/scheduler_config.json"):
        check_pipeline(pipeline)


@pytest.mark.parametrize("text", ["[]", "[" * 50_000], ids=["a list", "nested"])
def test_an_index_that_is_no_object_is_named(pipeline, text):
    (pipeline / "model_index.json").write_text(text)
    with pytest.raises(ModelFileError, match="model_index.json .*: download it again"):
        check_pipeline(pipeline)
