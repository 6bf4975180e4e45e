"""Meta tensors have values that follow from known ones; a denoiser that reads its mask can be planned."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lavibridge.core.contracts import Batch
from lavibridge.core.errors import ModelError
from lavibridge.plan.meta_model import build_meta_bridge
from lavibridge.plan.meta_values import LARGEST, MetaValues
from lavibridge.plan.meter import Meter
from lavibridge.plan.metered_passes import training_pass
from lavibridge.recipes.recipe import Recipe, make_recipe
from lavibridge.training.build_bridge import build_bridge
from lavibridge.training.loop import training_mode

MASK = torch.tensor([[True, True, False], [True, False, False]])


def test_values_follow_through_operations_views_and_writes() -> None:
    with MetaValues():
        mask = MASK.to("meta")
        assert mask.is_meta
        lengths = mask.sum(dim=1)
        assert lengths.tolist() == [2, 1]
        assert not bool(mask.all())
        assert mask.nonzero().tolist() == MASK.nonzero().tolist()
        places = torch.zeros(2, 3, dtype=torch.int32, device="meta")
        places[0, :2] = torch.arange(2, dtype=torch.int32, device="meta") + 5
        places[1] += mask[1]
        assert places.tolist() == [[5, 6, 0], [1, 0, 0]]
        assert places.T.flatten().tolist() == [5, 1, 6, 0, 0, 0]
        assert ((1 - mask.float()) * -8).tolist() == [[0, 0, -8], [0, -8, -8]]
        assert torch.equal(lengths.unique().cpu(), torch.tensor([1, 2]))


def test_what_follows_from_unknown_values_is_unknown() -> None:
    weight = torch.empty(3, device="meta")
    with MetaValues():
        known = torch.zeros(3, device="meta")
        view = known[:2]
        assert view.tolist() == [0, 0]
        known += weight  # and with it every view
        for tensor in (known, view, weight * 0, torch.rand(3, device="meta"), MASK.to("meta") * weight):
            with pytest.raises(ModelError, match=r"cannot be planned: it branches on the values of a tensor"):
                tensor.tolist()
        assert weight.new_ones(2).tolist() == [1, 1]
        assert bool((weight > 0).all()), "an unknown flag is true"
        assert len((weight > 0).nonzero()) == 3, "every element counts"
        assert not torch.equal(weight, known)


def test_a_known_mask_chooses_as_many_unknown_values_as_it_has() -> None:
    hidden = torch.empty(2, 3, 4, device="meta")
    with MetaValues():
        mask = MASK.to("meta")
        assert hidden[mask].shape == (3, 4)
        assert hidden[0][mask[0]].shape == (2, 4)
        weight = hidden[0, :, 0]
        assert hidden[:, weight > 0].shape == (2, 3, 4)
        weight[mask[0]] = 1.0


def test_large_tensors_have_no_values() -> None:
    with MetaValues(), pytest.raises(ModelError, match="cannot be planned"):
        torch.zeros(LARGEST + 1, device="meta").cpu()


def test_values_live_as_long_as_their_tensor() -> None:
    values = MetaValues()
    with values:
        for _ in range(3):
            kept = MASK.to("meta")
            assert kept.sum().item() == 3
        assert len(values._values) == 1
        del kept
        assert not values._values


@pytest.fixture
def lumina() -> Recipe:
    """A recipe into a denoiser that lays out its sequence by the values of its mask."""
    return make_recipe(
        {
            "language": {"kind": "llama", "source": "random"},
            "vision": {"kind": "lumina2", "source": "random"},
            "connector": {"kind": "lavi"},
            "lora": {"language": {"rank": 4}, "vision": {"rank": 4}},
            "data": {"kind": "world", "scenes": 8, "size": 64},
            "training": {"steps": 1},
        }
    )


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_denoiser_that_reads_its_mask_is_planned(lumina: Recipe, checkpointing: bool) -> None:
    content = lumina.model_dump()
    content["training"]["checkpointing"] = checkpointing
    recipe = make_recipe(content)
    planned = training_pass(build_meta_bridge(recipe), recipe, 2, None, "cpu")
    bridge = build_bridge(recipe)
    training_mode(bridge)
    latents = torch.randn(2, *bridge.vision.latent_shape(64, 64))
    prompts = ("x y z " * 200, "z y x " * 200)
    plain = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
    with plain, FlopCounterMode(display=False) as counter:
        sample = Batch(prompts=prompts, names=prompts, latents=latents)
        bridge(sample, torch.tensor([10, 500]), torch.randn_like(latents)).mean().backward()
    # A fused kernel computes the scores once more in the backward pass.
    assert counter.get_total_flops() <= planned.flops() <= 1.1 * counter.get_total_flops()


def test_experts_compute_groups_of_rows_in_float32_too() -> None:
    """Forward and backward; PyTorch's own shapes are for bfloat16 alone, and it counts no arithmetic."""
    with torch.device("meta"):
        rows, experts = torch.empty(6, 4, requires_grad=True), torch.empty(3, 4, 8, requires_grad=True)
        ends = torch.empty(3, dtype=torch.int32)
    with MetaValues(), Meter((rows, experts)) as meter:
        found = torch.nn.functional.grouped_mm(rows, experts, offs=ends)
        assert found.shape == (6, 8)
        found.sum().backward()
    assert rows.grad is not None
    assert experts.grad is not None
    assert (rows.grad.shape, experts.grad.shape) == (rows.shape, experts.shape)
    assert [each.flops for each in meter.work if each.flops] == [2 * 6 * 4 * 8] * 3
