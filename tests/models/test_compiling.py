"""torch.compile: the same pictures, a warm-up that is told of, and no picture lost where it cannot be done."""

from __future__ import annotations

import shutil

import pytest
import torch

from studio import illusions
from studio.illusions.request import IllusionRequest
from studio.models.compiling import COMPILING, CompiledForward
from studio.models.loading import load_pipeline
from studio.models.store import ModelStore, Options
from studio.sampling import Predictor

CPU = torch.device("cpu")
ROWS = [("identity", "a fox", ()), ("identity", "", ())]


@pytest.fixture
def network(tiny_pipeline):
    return load_pipeline("tiny", tiny_pipeline, CPU, torch.float32)


def compiled(network, backend):
    network.compiled = CompiledForward(network.denoiser, network.attached, network.residence, backend)
    return network.compiled


@torch.inference_mode()
def answer(network, side=16, said=None):
    predict = Predictor(network, say=[].append if said is None else said.append)
    predict.t = torch.tensor(500)
    x = torch.randn((2, 4, side, side), generator=torch.Generator().manual_seed(0))
    return predict(x, ROWS)


def test_every_new_shape_is_announced_once_and_answers_as_before(network):
    plain, graphs, said = answer(network), [], []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiled(network, backend)
    torch.testing.assert_close(answer(network, said=said), plain, atol=1e-5, rtol=1e-5)
    assert (len(said), bool(graphs)) == (1, True)
    count = len(graphs)
    answer(network, said=said)
    assert (said, len(graphs)) == ([COMPILING], count)
    answer(network, side=8, said=said)
    assert (said, len(graphs) > count) == ([COMPILING] * 2, True)
    assert "once for each of 2 shapes" in network.compiled.words()


def test_without_a_compiler_the_picture_is_made_all_the_same_and_says_so(network):
    def backend(graph, inputs):
        raise RuntimeError("No working C++ compiler found")

    plain, said = answer(network), []
    compiled(network, backend)
    assert torch.equal(answer(network, said=said), plain)
    assert torch.equal(answer(network, said=said), plain)
    assert said == [COMPILING]
    assert network.compiled.words().startswith("The model ran without being compiled: ")
    assert "No working C++ compiler found" in network.compiled.words()


def test_running_out_of_memory_is_no_trouble_with_the_compiler(network):
    compiled(network, "eager").fast = lambda *args, **kwargs: (_ for _ in ()).throw(torch.OutOfMemoryError("pretend"))
    with pytest.raises(torch.OutOfMemoryError):
        answer(network)
    assert network.compiled.trouble == ""


def test_adapters_and_moved_parts_are_run_as_they_are(network):
    asked = compiled(network, "eager")
    asked.fast = lambda *args, **kwargs: pytest.fail("was compiled")
    network.attached.names = ("one",)
    answer(network)
    network.attached.names = ()
    network.residence.settle(True)
    answer(network)
    assert "as it does with adapters" in asked.words()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
def test_the_engine_draws_the_same_picture_with_a_compiled_model(tiny_pipeline, assets):
    wanted, steps = IllusionRequest(model=str(tiny_pipeline), steps=2, size=32), []
    plain = illusions.run(wanted, ModelStore(assets, device="cpu"))
    store = ModelStore(assets, device="cpu", options=Options(compiled=True))
    made = illusions.run(wanted, store, on_step=steps.append)
    assert [step.note for step in steps].count(COMPILING) == 1
    assert any(note.startswith("Compiling took") for note in made.notes), made.notes
    pixels = [torch.tensor(list(run.candidates[0].image.tobytes())).float() for run in (plain, made)]
    assert (pixels[0] - pixels[1]).abs().max() <= 2
