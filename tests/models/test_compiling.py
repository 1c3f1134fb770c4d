"""torch.compile: the same answers, a warm-up that is told of, and no picture lost where it cannot be done."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch import nn

from studio import illusions
from studio.illusions.request import IllusionRequest
from studio.models.adapters import Attached
from studio.models.compiling import COMPILING, CompiledForward
from studio.models.residence import Residence
from studio.models.store import ModelStore, Options

CPU = torch.device("cpu")


class Compiled:
    """A small module, compiled, with all that it depends on."""

    def __init__(self, backend):
        torch.manual_seed(0)
        self.module = nn.Conv2d(4, 4, 3, padding=1)
        self.x = torch.randn(2, 4, 8, 8)
        self.plain = self.module(self.x)
        self.attached, self.residence = Attached(), Residence({"unet": self.module}, CPU)
        self.forward = CompiledForward(self.module, self.attached, self.residence, backend)


def test_every_new_shape_is_compiled_once_and_answers_as_before():
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    made = Compiled(backend)
    news = []
    for x in (made.x, made.x, made.x[:, :, :4], made.x):
        news.append(made.forward.is_new(x))
        made.module(x)
    assert (news, len(graphs)) == ([True, False, True, False], 2)
    torch.testing.assert_close(made.module(made.x), made.plain)
    assert "once for each of 2 shapes" in made.forward.words()


def test_without_a_compiler_it_runs_as_it_is_and_says_why():
    def backend(graph, inputs):
        raise RuntimeError("No working C++ compiler found")

    made = Compiled(backend)
    assert torch.equal(made.module(made.x), made.plain)
    assert not made.forward.is_new(made.x)
    assert made.forward.words().startswith("The model ran without being compiled: ")
    assert "No working C++ compiler found" in made.forward.words()


def test_what_is_wrong_with_the_forward_itself_comes_out():
    with pytest.raises(RuntimeError, match="channels"):
        Compiled("eager").module(torch.zeros(1, 3, 8, 8))


def test_running_out_of_memory_is_no_trouble_with_the_compiler():
    made = Compiled("eager")
    made.forward.fast = lambda *args: (_ for _ in ()).throw(torch.OutOfMemoryError("pretend"))
    with pytest.raises(torch.OutOfMemoryError):
        made.module(made.x)
    assert made.forward.trouble == ""


def test_adapters_and_moved_parts_are_run_as_they_are():
    made = Compiled("eager")
    made.forward.fast = lambda *args: pytest.fail("was compiled")
    made.attached.names = ("one",)
    assert torch.equal(made.module(made.x), made.plain)
    made.attached.names = ()
    made.residence.settle(True)
    assert torch.equal(made.module(made.x), made.plain)
    assert "as it does with adapters" in made.forward.words()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
def test_the_engine_draws_the_same_picture_with_a_compiled_model(tiny_pipeline, assets):
    wanted, steps = IllusionRequest(model=str(tiny_pipeline), steps=2), []
    plain = illusions.run(wanted, ModelStore(assets, device="cpu"))
    store = ModelStore(assets, device="cpu", options=Options(compiled=True))
    made = illusions.run(wanted, store, on_step=steps.append)
    assert [step.note for step in steps].count(COMPILING) == 1
    assert any(note.startswith("Compiling took") for note in made.notes), made.notes
    pixels = [torch.tensor(list(run.candidates[0].image.tobytes())).float() for run in (plain, made)]
    assert (pixels[0] - pixels[1]).abs().max() <= 2
