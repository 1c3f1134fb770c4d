"""Views are refused by measurement: bad matrices, sets that do not add up, codes that cannot carry a view."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from studio.errors import RequestError, ViewError
from studio.illusions.reductions import resolve
from studio.views.admission import (
    Headroom,
    admit,
    carried,
    check_headroom,
    check_set,
    check_specs,
    dead_leaves,
    headroom,
    measure,
)
from studio.views.specs import VIEWS, Kind, parse_spec
from studio.views.view import View, build


@dataclass(frozen=True)
class Tilted:
    """A turn by 45 degrees, which no permutation of cells is."""

    mode: str = "bilinear"
    cells: int = 64
    title: str = "An eighth of a turn"
    kind: Kind = "orthogonal"

    def show(self, x: Tensor, way: float = 1.0) -> Tensor:
        half = way * 0.5**0.5
        matrix = torch.tensor([[[0.5**0.5, -half, 0], [half, 0.5**0.5, 0]]]).expand(len(x), -1, -1)
        grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
        return F.grid_sample(x, grid, mode=self.mode, padding_mode="reflection", align_corners=False)

    def bring_back(self, prediction: Tensor) -> Tensor:
        return self.show(prediction, -1.0)


@dataclass(frozen=True)
class Scaled:
    """White balance: every value times 1.5."""

    cells: int = 32
    title: str = "Brighter"
    kind: Kind = "orthogonal"

    def show(self, x: Tensor) -> Tensor:
        return 1.5 * x

    def bring_back(self, prediction: Tensor) -> Tensor:
        return prediction / 1.5


@dataclass(frozen=True)
class Blurred(Scaled):
    title: str = "Blurred"

    def show(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 3, stride=1, padding=1)

    def bring_back(self, prediction: Tensor) -> Tensor:
        return prediction


@dataclass(frozen=True)
class Lost(Scaled):
    """A fine matrix whose way back is wrong."""

    title: str = "Turned and left so"

    def show(self, x: Tensor) -> Tensor:
        return x.rot90(1, (-2, -1))

    def bring_back(self, prediction: Tensor) -> Tensor:
        return prediction


def of(*texts: str) -> list[View]:
    return [build(text, 16) for text in texts]


@pytest.mark.parametrize("entry", VIEWS, ids=lambda entry: entry.name)
def test_every_view_of_the_table_is_admitted(entry):
    evidence = admit(build(entry.name, 16))
    assert evidence.identity_error < 1e-6
    assert abs(evidence.variance - 1) < 0.02
    assert abs(evidence.correlation) < 0.02


@pytest.mark.parametrize(
    ("view", "variance", "correlation"),
    [(Tilted(), 0.445, 0.265), (Tilted("nearest"), 1.0, 0.08), (Scaled(), 2.25, 0.0), (Blurred(), 0.11, 0.66)],
    ids=lambda value: getattr(value, "title", None),
)
def test_a_bad_matrix_is_measured_and_refused_with_its_numbers(view, variance, correlation):
    evidence = measure(view)
    assert evidence.variance == pytest.approx(variance, abs=0.03)
    assert evidence.correlation == pytest.approx(correlation, abs=0.03)
    assert evidence.identity_error > 0.1
    with pytest.raises(ViewError) as error:
        admit(view)
    assert f"variance {evidence.variance:.2f} (1.00 needed)" in str(error.value)
    assert f"correlation {evidence.correlation:.2f}" in str(error.value)
    assert error.value.field == "views"


def test_scaling_by_one_and_a_half_is_off_the_identity_by_five_quarters():
    assert measure(Scaled()).identity_error == pytest.approx(1.25, rel=1e-4)


def test_a_wrong_way_back_is_refused_although_noise_stays_white():
    with pytest.raises(ViewError, match=r"the way back by 1\.4"):
        admit(Lost())


def test_views_are_measured_inside_a_job_that_samples_in_inference_mode():
    with torch.inference_mode():
        view = build("jigsaw(seed=5)", 16)
        view.show(torch.zeros(1, 4, 16, 16))
        assert admit(view).is_white


def test_orthogonal_views_stand_together_and_are_averaged():
    assert check_set(of("identity", "rotate_180", "negate")) == "orthogonal"
    assert resolve("auto", "orthogonal").name == "mean"
    assert resolve("alternate", "orthogonal").name == "alternate"


def test_a_whole_family_is_summed_in_any_order_and_moved_or_not():
    assert check_set(of("high_pass", "low_pass")) == "component"
    assert check_set(of("triple_medium", "triple_low+rotate_90", "triple_high")) == "component"
    assert resolve("auto", "component").name == resolve("sum", "component").name == "sum"


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["low_pass"], "low_pass is only a part: add high_pass."),
        (["low_pass(sigma=0.1)"], "low_pass is only a part: add high_pass(sigma=0.1)."),
        (["triple_low", "triple_high"], "triple_low is only a part: add triple_medium."),
        (["low_pass", "high_pass", "low_pass"], "low_pass is there twice: name each part once."),
        (["low_pass(sigma=0.1)", "high_pass"], "low_pass(sigma=0.1) and high_pass do not add up: "
         "write high_pass(sigma=0.1)."),
        (["low_pass", "colour"], "low_pass and colour are parts of different wholes: use low_pass with high_pass."),
        (["low_pass", "high_pass", "rotate_90"], "low_pass is one part of a picture and rotate_90 shows all of it, "
         "which does not add up: leave out rotate_90, or write low_pass+rotate_90 to move the part."),
    ],
)  # fmt: skip
def test_views_that_do_not_add_up_are_refused_with_the_fix(texts, message):
    with pytest.raises(RequestError) as error:
        check_specs([parse_spec(text) for text in texts])
    assert str(error.value) == message
    assert error.value.field == "views"


@pytest.mark.parametrize(
    ("reduction", "kind", "fix"),
    [
        ("mean", "component", "choose sum or auto"),
        ("alternate", "component", "choose sum or auto"),
        ("sum", "orthogonal", "choose mean, alternate or auto"),
    ],
)
def test_a_reduction_that_does_not_fit_is_refused_with_the_fix(reduction, kind, fix):
    with pytest.raises(RequestError, match=fix) as error:
        resolve(reduction, kind)
    assert error.value.field == "reduction"


def pooled(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 4)


def blocks(z: Tensor) -> Tensor:
    return z.repeat_interleave(4, -2).repeat_interleave(4, -1)


@pytest.mark.parametrize("name", ["rotate_180", "jigsaw", "square_hinge", "negate", "channel_permutation", "grayscale"])
def test_codes_that_are_small_pictures_carry_what_pictures_carry(name):
    measured = headroom(build(name, 16, cell=4), pooled, blocks, dead_leaves(2, 64))
    assert measured.measured == pytest.approx(measured.floor, abs=1e-5)
    assert carried(measured)
    assert 0 < measured.floor < measured.mismatch
    assert measured.null > measured.floor


def test_codes_that_know_where_they_lie_carry_the_identity_only():
    """Position-dependent codes: every cell is multiplied with a sign of its own."""
    signs = torch.randn(16, 16, generator=torch.Generator().manual_seed(0)).sign()
    measured = {
        name: headroom(build(name, 16, 4), lambda x: pooled(x) * signs, lambda z: blocks(z * signs), dead_leaves(2, 64))
        for name in ("identity", "rotate_180")
    }
    assert measured["identity"].lost == 0
    assert not carried(measured["rotate_180"])
    with pytest.raises(ViewError, match="This model cannot carry rotate_180: seen through its codes") as error:
        check_headroom(build("rotate_180", 16, 4), measured["rotate_180"])
    assert f"{measured['rotate_180'].measured:.3f}" in str(error.value)
    assert "25% allowed" in str(error.value)


def test_headroom_takes_a_real_autoencoder():
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
    ).eval()
    view = build("flip_horizontal", 16, cell=2)
    measured = headroom(
        view, lambda x: vae.encode(x).latent_dist.mean, lambda z: vae.decode(z).sample, dead_leaves(2, 32)
    )
    assert measured.floor > 0
    assert measured.measured > 0


def test_the_share_lost_runs_from_the_codecs_own_error_to_a_stranger():
    assert Headroom(measured=0.1, floor=0.1, null=0.4, mismatch=0.5).lost == 0
    assert Headroom(measured=0.3, floor=0.1, null=0.4, mismatch=0.5).lost == pytest.approx(0.5)
    assert carried(Headroom(measured=0.2, floor=0.1, null=0.4, mismatch=0.5))
    assert not carried(Headroom(measured=0.21, floor=0.1, null=0.4, mismatch=0.5))


def test_one_picture_is_not_enough_for_a_stranger():
    with pytest.raises(ValueError, match="at least two"):
        headroom(build("negate", 16, 4), pooled, blocks, dead_leaves(1, 64))


def test_probe_pictures_are_the_same_every_time_and_in_range():
    pictures = dead_leaves(2, 32)
    assert torch.equal(pictures, dead_leaves(2, 32))
    assert pictures.shape == (2, 3, 32, 32)
    assert pictures.abs().max() <= 1
    assert pictures[0].std() > 0.2
