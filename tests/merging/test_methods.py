"""The catalogue: every method against a small numpy reference, and what all of them keep."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from studio.merging import measures
from studio.merging.catalogue import METHODS, Dropped, Ranked, Slerp, Sparse
from studio.merging.methods import FUNCTIONS, Setting, drop_chances, elected_mean, least_kept, merged, trimmed

SHAPE = (6, 5)


def inputs(count, seed=0, shape=SHAPE):
    """fp16 numbers in float32, as files give them."""
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=draw).half().float() for _ in range(count)]


def setting(name, alpha, seed=0):
    return Setting(alpha, METHODS[name].options(), torch.Generator().manual_seed(seed))


def np_cos(a, b):
    a, b = a.ravel(), b.ravel()
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def np_slerp(t, alpha):
    w = np.arccos(np_cos(t[0], t[1]))
    return (np.sin((1 - alpha) * w) * t[0] + np.sin(alpha * w) * t[1]) / np.sin(w)


def np_train(t, alpha):
    a, b, c = t
    return a + 1.8 * alpha * (b - c) * np.abs(b - a) / (np.abs(b - a) + np.abs(b - c))


def np_ties(t, alpha, density=0.2):
    kept = []
    for other in t[1:]:
        change = (other - t[0]).ravel()
        small = np.argsort(np.abs(change))[: change.size - round(density * change.size)]
        change[small] = 0
        kept.append(change.reshape(t[0].shape))
    return t[0] + alpha * np_elect(kept)


def np_elect(changes):
    out = np.zeros_like(changes[0])
    sign = np.sign(sum(changes))
    for place in np.ndindex(out.shape):
        agree = [c[place] for c in changes if c[place] != 0 and np.sign(c[place]) == sign[place]]
        out[place] = np.mean(agree) if agree else 0
    return out


def np_perpendicular(t, alpha):
    d, a = t[1] - t[2], t[0] - t[2]
    return t[0] + alpha * (d - (d.ravel() @ a.ravel()) / (a.ravel() @ a.ravel()) * a)


def np_stock(t, alpha):
    d = [other - t[0] for other in t[1:]]
    cos = max(0.0, np.mean([np_cos(d[0], d[1]), np_cos(d[0], d[2]), np_cos(d[1], d[2])]))
    return t[0] + 3 * cos / (1 + 2 * cos) * sum(d) / 3


def np_columns(t):
    return np.array([np_cos(t[0][:, i], t[1][:, i]) for i in range(t[0].shape[1])])


def np_blend(t, alpha, cos):
    k = 1 - np.clip(cos - alpha, 0, 1)
    return t[0] * (1 - k) + t[1] * k


REFERENCES = {
    "weighted_sum": (2, lambda t, a: (1 - a) * t[0] + a * t[1]),
    "add_difference": (3, lambda t, a: t[0] + a * (t[1] - t[2])),
    "sigmoid": (2, lambda t, a: t[0] + (3 * a**2 - 2 * a**3) * (t[1] - t[0])),
    "inverse_sigmoid": (2, lambda t, a: t[0] + (0.5 - np.sin(np.arcsin(1 - 2 * a) / 3)) * (t[1] - t[0])),
    "slerp": (2, np_slerp),
    "average": (4, lambda t, a: np.mean(t, 0)),
    "train_difference": (3, np_train),
    "task_arithmetic": (3, lambda t, a: t[0] + a * ((t[1] - t[0]) + (t[2] - t[0]))),
    "ties": (4, np_ties),
    "perpendicular": (3, np_perpendicular),
    "model_stock": (4, np_stock),
    "cosine_a": (2, lambda t, a: np_blend(t, a, np_columns(t))),
    "cosine_b": (2, lambda t, a: np_blend(t, a, (np_columns(t) + np_cos(t[0], t[1])) / 2)),
}
RANDOM = {"dare", "della"}


def test_the_table_and_the_functions_speak_of_the_same_methods():
    assert METHODS.keys() == FUNCTIONS.keys() == REFERENCES.keys() | RANDOM
    assert {name for name, method in METHODS.items() if method.random} == RANDOM


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("alpha", [0.3, 0.85])
def test_a_method_is_its_numpy_reference(name, alpha):
    count, reference = REFERENCES[name]
    t = inputs(count)
    wanted = reference([tensor.double().numpy() for tensor in t], alpha)
    np.testing.assert_allclose(merged(name, t, setting(name, alpha)).numpy(), wanted, rtol=2e-6, atol=2e-6)


def counts(method):
    return sorted({method.models[0], min(4, method.models[1])})


@pytest.mark.parametrize("name", METHODS)
def test_a_with_itself_is_a(name):
    for count in counts(METHODS[name]):
        same = inputs(1) * count
        assert torch.equal(merged(name, same, setting(name, 0.37)), same[0])


@pytest.mark.parametrize("name", METHODS)
def test_at_its_neutral_ends_a_method_gives_an_input_back(name):
    for count in counts(METHODS[name]):
        t = inputs(count)
        for alpha, index in METHODS[name].ends.items():
            assert torch.equal(merged(name, t, setting(name, alpha)), t[index])


@pytest.mark.parametrize("name", METHODS)
def test_inputs_are_left_as_they_were_and_a_seed_repeats_itself(name):
    t = inputs(METHODS[name].models[0])
    before = [tensor.clone() for tensor in t]
    first, again = (merged(name, t, setting(name, 0.4)) for _ in range(2))
    assert torch.equal(first, again)
    assert all(torch.equal(one, other) for one, other in zip(t, before, strict=True))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("shape", [(3,), (1,), (2, 3, 1, 1)])
def test_every_shape_of_tensor_goes_through(name, shape):
    t = inputs(METHODS[name].models[0], shape=shape)
    out = merged(name, t, setting(name, 0.4))
    assert out.shape == t[0].shape
    assert torch.isfinite(out).all()


class Cut(measures.Whole):
    """Tensors in memory, cut into pieces of ``rows`` rows."""

    def __init__(self, tensors, rows):
        super().__init__(tensors)
        self._cut = list(zip(*(tensor.split(rows) for tensor in tensors), strict=True))
        self.numbers = [pieces[0].numel() for pieces in self._cut]

    def __iter__(self):
        return iter(self._cut)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("shape", "rows"), [((24, 129), 7), ((9, 4, 3, 3), 1)])
def test_the_same_bits_come_out_wherever_a_tensor_is_cut(name, shape, rows, monkeypatch):
    monkeypatch.setattr(measures, "GROUP", 50)
    for count in counts(METHODS[name]):
        t = inputs(count, shape=shape)
        t[1] = torch.where(t[1].abs() < 1, t[0], t[1])  # many changes of zero
        whole = merged(name, t, setting(name, 0.4))
        parts = list(FUNCTIONS[name](Cut(t, rows), setting(name, 0.4)))
        assert [len(part) for part in parts] == [len(part) for part in t[0].split(rows)]
        assert torch.equal(whole.view(torch.int32), torch.cat(parts).view(torch.int32))


@pytest.mark.parametrize("density", [0.001, 0.2, 0.5, 0.999, 1.0])
def test_the_least_magnitude_that_is_kept_is_found_exactly_in_pieces(density):
    (change,) = inputs(1, shape=(40, 30))
    change[:10] = change[:10].round()
    wanted = change.abs().flatten().sort(descending=True).values[max(1, round(density * 1200)) - 1]
    least = least_kept(lambda: change.split(7), 1200, density)
    assert least == (None if density == 1.0 else wanted)


def test_ranks_are_those_of_a_stable_sort_however_many_groups_they_are_sorted_in(monkeypatch):
    (change,) = inputs(1, shape=(40, 30))
    change[:20] = change[:20].round()
    wanted = torch.empty(1200)
    wanted[change.abs().flatten().argsort(stable=True)] = torch.arange(1200.0)
    for group in (1, 100, 10_000):
        monkeypatch.setattr(measures, "GROUP", group)
        assert torch.equal(measures.ranks(lambda: change.split(7), 1200), wanted)


def test_a_difference_to_a_itself_gives_b():
    a, b = inputs(2)
    assert torch.equal(merged("add_difference", [a, b, a], setting("add_difference", 1.0)), b)


def test_slerp_keeps_the_length_half_way_where_a_straight_line_sags():
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    assert merged("slerp", [a, b], setting("slerp", 0.5)).tolist() == pytest.approx([0.5**0.5] * 2)
    straight = merged("slerp", [a, b], Setting(0.5, Slerp(parallel=1.0)))
    assert straight.norm().item() == pytest.approx(1.0)


def test_ties_trims_elects_and_averages_by_hand():
    base = torch.zeros(4)
    one, other = torch.tensor([4.0, -3.0, 0.1, 2.0]), torch.tensor([2.0, 5.0, 0.2, -0.3])
    got = merged("ties", [base, one, other], Setting(1.0, Sparse(density=0.5)))
    # Kept: [4, -3, 0, 0] and [2, 5, 0, 0]; signs elected: +, +.
    assert got.tolist() == [3.0, 5.0, 0.0, 0.0]
    assert trimmed(one, None) is one
    assert elected_mean(torch.tensor([[1.0], [-1.0]])).tolist() == [0.0]


def test_dare_drops_the_share_it_is_told_and_keeps_the_mean():
    base, other = torch.zeros(100_000), torch.ones(100_000)
    got = merged("dare", [base, other], Setting(1.0, Dropped(drop=0.7), torch.Generator().manual_seed(0)))
    assert got.unique().tolist() == pytest.approx([0.0, 1 / 0.3])
    assert got.mean().item() == pytest.approx(1.0, abs=0.02)
    assert (got == 0).float().mean().item() == pytest.approx(0.7, abs=0.01)


def test_della_drops_the_smallest_most_and_the_mean_share_is_as_told():
    change = torch.tensor([0.1, -5.0, 2.0, -0.3, 1.0])
    chances = drop_chances(lambda: [change], 5, 0.5, 0.1)
    assert chances.tolist() == pytest.approx([0.55, 0.45, 0.475, 0.525, 0.5])
    base, other = torch.zeros(100_000), torch.linspace(0.5, 1.5, 100_000)
    got = merged("della", [base, other], Setting(1.0, Ranked(drop=0.4), torch.Generator().manual_seed(0)))
    assert (got == 0).float().mean().item() == pytest.approx(0.4, abs=0.01)
    assert got.mean().item() == pytest.approx(1.0, abs=0.02)
