"""A new LoRA on top of earlier ones: they are in the network, they stay as they are, and the penalty keeps them."""

from __future__ import annotations

import hashlib
import json
import shutil
from functools import partial

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from safetensors import safe_open
from torch import nn

from studio import requests, training
from studio.errors import PolicyError, RequestError, StudioError
from studio.models.adapters import LowRank, Written, attach
from studio.models.store import ModelStore
from studio.policy import LOCAL, SHARED, check_train
from studio.settings import Settings
from studio.training.continual import Beneath
from studio.training.engine import Training
from studio.training.injecting import NAME, Learner
from studio.training.preflight import check
from studio.training.request import TrainRequest
from tests.tiny import save_tiny_sd3, save_tiny_sdxl
from tests.training.asked import asked, save_set
from tests.training.test_resume import assert_same, run, state

RANKED = {"rank": 2, "alpha": 3.0, "targets": "linear"}


def answer(network, *worn: str):
    """What the network says of fixed noise and prompts with attached adapters at scale 1."""
    x = torch.randn(2, network.channels, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        conditions = network.encode_adapted(["a red fox", "a penguin"], [(name, 1.0) for name in worn])
        return network.predict(x, torch.tensor([10, 700]), conditions, {name: torch.ones(2) for name in worn})


@pytest.fixture(scope="module")
def earlier(pictures, tiny_store, tmp_path_factory):
    """Two LoRAs of the tiny model by name, the first with its text encoder."""
    root, found = tmp_path_factory.mktemp("earlier"), {}
    for name, more in (("one", {"text_encoder": True}), ("two", {"seed": 5, "adapter": "rslora"})):
        request = asked(pictures, title=name, steps=4, **RANKED | more)
        (root / name).mkdir()
        found[name] = root / name / training.run(request, tiny_store).save(root / name)["output"]
    return found


def on_top(pictures, earlier, **changes):
    names = changes.pop("of", ("one", "two"))
    settings = RANKED | {"earlier": tuple(str(earlier[name]) for name in names), "title": "new", "seed": 9}
    return asked(pictures, **settings | changes)


def learn(request, store, **more):
    """The result, and what the network answered when the loop began and when it ended."""
    seen, taken, began = {}, Training._result, Training._learn

    def first(self):
        seen["first"] = answer(self.network)
        return began(self)

    def last(self, stopped):
        seen["last"] = answer(self.network)
        return taken(self, stopped)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "_learn", first)
        patch.setattr(Training, "_result", last)
        return training.run(request, store, **more), seen


# -- the penalty


class Single(nn.Module):
    """One linear layer of two inputs and two outputs."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2, bias=False)


def placed(up, down, alpha=3.0):
    """(what stands beneath, a learner) whose earlier changes sum to [[3, -1], [6, -6]]."""
    model = Single()
    base = model.layer
    first = LowRank("a", torch.tensor([[3.0, -1.0]]), torch.tensor([[1.0], [2.0]]))
    second = Written("b", "full", {"diff": torch.tensor([[0.0, 0.0], [0.0, -4.0]])}, 1.0, None, None)
    config = LoraConfig(r=len(down), lora_alpha=alpha, target_modules=["layer"])
    inject_adapter_in_model(config, model, adapter_name=NAME)
    model.double()
    model.layer.lora_B[NAME].weight.data = torch.tensor(up, dtype=torch.double)
    model.layer.lora_A[NAME].weight.data = torch.tensor(down, dtype=torch.double)
    learner = Learner({"unet": model}, {"unet": config})
    return Beneath({("unet", "layer"): (base, [first, second])}), learner


def test_the_penalty_is_the_paper_s_in_numbers():
    below, learner = placed([[1.0], [0.5]], [[2.0, 1.0]])
    # now = 3 [[2, 1], [1, 0.5]] = [[6, 3], [3, 1.5]]; times earlier [[18, -3], [18, -9]]; squares 324 + 9 + 324 + 81
    assert [term.item() for term in below.penalties(learner, 0.5)] == [369.0]


def test_changes_of_other_places_cost_nothing():
    below, learner = placed([[1.0], [0.0]], [[0.0, 1.0]])
    assert [term.item() for term in below.penalties(learner, 1.0)] == [9.0]  # 3 * -1, in one place
    apart = Beneath({("unet", "layer"): (below.changes["unet", "layer"][0], [_only([[0.0, 0.0], [7.0, 7.0]])])})
    assert [term.item() for term in apart.penalties(learner, 1.0)] == [0.0]
    assert list(Beneath({}).penalties(learner, 1.0)) == []


def _only(rows):
    return Written("b", "full", {"diff": torch.tensor(rows)}, 1.0, None, None)


def test_earlier_changes_that_cancel_leave_nothing_to_keep():
    """The absolute value is of the sum, not the sum of absolute values."""
    below, learner = placed([[1.0], [0.5]], [[2.0, 1.0]])
    layer = below.changes["unet", "layer"][0]
    rows, opposite = [[1.0, 2.0], [3.0, 4.0]], [[-1.0, -2.0], [-3.0, -4.0]]
    cancelling = Beneath({("unet", "layer"): (layer, [_only(rows), _only(opposite)])})
    assert [term.item() for term in cancelling.penalties(learner, 1.0)] == [0.0]


def test_its_gradient_is_that_of_finite_differences():
    torch.manual_seed(0)
    below, learner = placed(torch.randn(2, 2).tolist(), torch.randn(2, 2).tolist(), alpha=5.0)
    (term,) = below.penalties(learner, 0.7)
    term.backward()
    step = 1e-6
    for parameter in learner.parameters.values():
        for place in range(parameter.numel()):
            sides = []
            for sign in (1, -1):
                parameter.data.view(-1)[place] += sign * step
                sides.append(sum(term.item() for term in below.penalties(learner, 0.7)))
                parameter.data.view(-1)[place] -= sign * step
            expected = (sides[0] - sides[1]) / (2 * step)
            assert parameter.grad.view(-1)[place].item() == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert len(learner.parameters) == 2


def test_convolutions_count_like_matrices(pictures, tiny_store, earlier, tmp_path):
    options = {"conv_rank": 2, "conv_alpha": 2.0}
    old = asked(pictures, adapter="locon", options=options, **RANKED | {"targets": "all", "title": "old"})
    path = tmp_path / training.run(old, tiny_store).save(tmp_path)["output"]
    request = old.model_copy(update={"earlier": (str(path),), "earlier_penalty": 1.0, "seed": 3, "title": "new"})
    seen = {}
    taken = Training._result

    def spy(self, stopped):
        learner = self.learner
        terms = list(self.beneath.penalties(learner, 1.0))
        seen["terms"], seen["layers"] = terms, learner.layers("unet")
        return taken(self, stopped)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "_result", spy)
        training.run(request, tiny_store)
    assert len(seen["terms"]) == len(seen["layers"])
    assert any(isinstance(layer.get_base_layer(), nn.Conv2d) for layer in seen["layers"].values())
    assert all(term.item() > 0 for term in seen["terms"])


# -- the run


def test_earlier_loras_are_in_the_network_while_it_learns_and_gone_afterwards(pictures, tiny_store, earlier):
    with tiny_store.lease("tiny") as network:
        bare, before = answer(network), {name: part.state_dict() for name, part in network.adaptable.items()}
        with attach(network.attached, network.adaptable, earlier, "tiny"):
            both = answer(network, "one", "two")
    assert (both - bare).abs().max() > 1e-3
    _, seen = learn(on_top(pictures, earlier), tiny_store)
    torch.testing.assert_close(seen["first"], both, atol=2e-6, rtol=0)
    assert (seen["last"] - both).abs().max() > 1e-3
    assert torch.equal(answer(network), bare)
    for name, part in network.adaptable.items():
        assert all(torch.equal(value, before[name][key]) for key, value in part.state_dict().items())
    assert network.attached.names == ()


@pytest.mark.parametrize("text_encoder", [False, True])
def test_the_new_lora_alone_is_what_is_saved_and_all_together_are_what_was_trained(
    text_encoder, pictures, tiny_store, earlier, tmp_path
):
    request = on_top(pictures, earlier, earlier_penalty=2.0, text_encoder=text_encoder)
    result, seen = learn(request, tiny_store)
    path = tmp_path / result.save(tmp_path)["output"]
    with tiny_store.lease("tiny") as network:
        with attach(network.attached, network.adaptable, {**earlier, "new": path}, "tiny"):
            torch.testing.assert_close(answer(network, "one", "two", "new"), seen["last"], atol=5e-6, rtol=0)
    assert "Learned on top of one.safetensors and two.safetensors: use them together, each at scale 1." in result.said
    with safe_open(path, "pt") as file:
        notes = file.metadata()
    assert json.loads(notes["duckrabbit_earlier"]) == [
        {"name": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()} for path in earlier.values()
    ]
    assert notes["modelspec.description"] in result.said


@pytest.mark.parametrize("family", ["sdxl", "sd3"])
def test_other_families_learn_on_top_as_well(family, pictures, assets, tmp_path):
    {"sdxl": save_tiny_sdxl, "sd3": partial(save_tiny_sd3, with_t5=False)}[family](tmp_path / family)
    store = ModelStore(assets, tmp_path, device="cpu")
    settings = RANKED | {"model": family, "text_encoder": True}
    (tmp_path / "old").mkdir()
    old = training.run(asked(pictures, title="old", **settings), store).save(tmp_path / "old")["output"]
    named = {"earlier": (f"old/{old}",), "earlier_penalty": 2.0, "title": "new", "seed": 9}  # in the models folder
    result, seen = learn(asked(pictures, **settings | named), store)
    assert result.points[1].penalty > 0
    files = {"old": tmp_path / "old" / old, "new": tmp_path / result.save(tmp_path)["output"]}
    with store.lease(family) as network:
        with attach(network.attached, network.adaptable, files, family):
            torch.testing.assert_close(answer(network, "old"), seen["first"], atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(answer(network, "old", "new"), seen["last"], atol=1e-5, rtol=1e-4)


def test_the_curve_has_the_penalty_beside_the_loss(pictures, tiny_store, earlier):
    free = training.run(on_top(pictures, earlier, steps=3), tiny_store).points
    kept = training.run(on_top(pictures, earlier, steps=3, earlier_penalty=50.0), tiny_store).points
    assert [point.penalty for point in free] == [None] * 3
    assert kept[0].penalty == 0.0  # a new LoRA begins as nothing
    assert kept[2].penalty > kept[1].penalty * 0.1 > 0
    assert kept[0].loss == free[0].loss
    assert kept[2].loss != free[2].loss


def test_a_penalty_keeps_what_earlier_loras_say(tiny_store, earlier, tmp_path):
    """Measured on other pictures: what the new LoRA changes where the earlier ones speak falls with the penalty."""
    data = save_set(tmp_path / "set", count=6)
    drift, changed = [], []
    for penalty in (0.0, 1e2, 1e4):
        request = on_top(data, earlier, steps=15, batch_size=2, earlier_penalty=penalty)
        result, seen = learn(request, tiny_store)
        drift.append((seen["last"] - seen["first"]).square().mean().item())
        changed.append(sum(value.square().sum().item() for key, value in result.last.kohya.items() if "up" in key))
    assert drift[1] < 0.8 * drift[0]
    assert drift[2] < 0.8 * drift[1]
    assert changed[2] < changed[0]  # and that is its price: less is learned


def test_samples_before_the_first_step_leave_nothing_that_cannot_be_trained_through(pictures, tiny_store, earlier):
    plain = training.run(on_top(pictures, earlier), tiny_store)
    drawn = training.run(on_top(pictures, earlier, sample_prompts=("a fox",), sample_steps=1), tiny_store)
    assert sorted(drawn.journal.samples) == [0, 2]
    assert drawn.points == plain.points


def test_conditions_cached_without_them_are_not_taken_for_theirs(pictures, tiny_store, earlier, tmp_path):
    def losses(folder, **changes):
        (tmp_path / folder).mkdir(exist_ok=True)
        found = training.run(asked(pictures, **RANKED | changes), tiny_store, folder=tmp_path / folder)
        return [point.loss for point in found.points]

    named = {"earlier": (str(earlier["one"]),)}
    losses("bare", cache="disk")
    assert losses("disk", cache="disk", **named) == losses("memory", **named)


def test_stopped_and_resumed_is_bit_for_bit_the_run_that_never_stopped(pictures, tiny_store, earlier, tmp_path):
    request = on_top(
        pictures, earlier, earlier_penalty=10.0, steps=4, text_encoder=True, accumulation=2, validation_share=0.25
    )
    run(request, tiny_store, tmp_path / "whole")
    run(request, tiny_store, tmp_path / "first", stop_after=2)
    moved = {name: shutil.copy(path, tmp_path / f"{name}.safetensors") for name, path in earlier.items()}
    again = request.model_copy(update={"resume": str(tmp_path / "first"), "earlier": tuple(map(str, moved.values()))})
    run(again, tiny_store, tmp_path / "second")
    assert_same(state(tmp_path / "whole"), state(tmp_path / "second"))


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"of": ("one",)}, "earlier"), ({"of": ("two", "one")}, "earlier"), ({"earlier_penalty": 1.0}, "earlier_penalty")],
)
def test_other_earlier_loras_are_another_run(changes, field, pictures, tiny_store, earlier, tmp_path):
    run(on_top(pictures, earlier, steps=3), tiny_store, tmp_path / "first", stop_after=1)
    with pytest.raises(RequestError) as refused:
        run(on_top(pictures, earlier, steps=3, resume=str(tmp_path / "first"), **changes), tiny_store)
    assert refused.value.field == field


# -- what cannot be


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"earlier_penalty": 1.0}, "earlier_penalty", "there is nothing to keep"),
        ({"earlier": ["a", "a"]}, "earlier", "each LoRA is given once"),
        ({"earlier": ["a"], "earlier_penalty": -1.0}, "earlier_penalty", "must be at least 0"),
        *(
            (
                {"earlier": ["a"], "earlier_penalty": 1.0, "adapter": kind},
                "earlier_penalty",
                "choose lora, rslora, locon",
            )
            for kind in ("dora", "loha", "lokr", "oft", "boft")
        ),
    ],
)
def test_a_penalty_that_has_no_meaning_is_refused_by_name(changes, field, words):
    with pytest.raises(RequestError) as refused:
        check(requests.parse(TrainRequest, changes))
    assert refused.value.field == field
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [("one", "is a LoRA for"), ("nowhere.safetensors", "There is no LoRA 'nowhere.safetensors'")],
)
def test_a_lora_that_is_not_there_or_was_made_for_another_model_is_refused_before_one_is_loaded(
    name, words, pictures, assets, earlier, tiny_sdxl, monkeypatch
):
    store = ModelStore(assets, tiny_sdxl.parent, device="cpu")
    monkeypatch.setattr(store, "network", lambda *args: pytest.fail("loaded"))
    request = asked(pictures, model="sdxl", earlier=(str(earlier.get(name, name)),))
    with pytest.raises(StudioError, match=words) as by_run:
        training.run(request, store)
    with pytest.raises(StudioError, match=words) as by_check:
        check(request, Settings(models_dir=tiny_sdxl.parent))
    assert by_run.value.field == by_check.value.field == "earlier.0"


def test_strangers_name_only_loras_that_are_offered():
    request = TrainRequest(earlier=("/etc/passwd",))
    with pytest.raises(PolicyError, match="this studio does not offer '/etc/passwd'") as refused:
        check_train(request, SHARED, ("builtin:emoji",), ("mine.safetensors",))
    assert refused.value.field == "earlier"
    check_train(request, LOCAL, ("builtin:emoji",))
    check_train(TrainRequest(earlier=("mine.safetensors",)), SHARED, ("builtin:emoji",), ("mine.safetensors",))
    with pytest.raises(PolicyError, match="at most 2 are allowed here, got 3"):
        check_train(TrainRequest(earlier=("a", "b", "c")), SHARED, ("builtin:emoji",), ("a", "b", "c"))
