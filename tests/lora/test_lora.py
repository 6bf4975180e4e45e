"""LoRA through PEFT: starts as the identity, trains alone, merges exactly, and its folders are PEFT's own."""

import json
from pathlib import Path
from typing import Any

import diffusers
import peft
import pytest
import torch
import transformers
from torch import Tensor, nn

from lavibridge import lora
from lavibridge.core import registry
from lavibridge.core.contracts import Conditioning
from lavibridge.core.errors import ModelError
from lavibridge.core.safetensors_file import load_tensors
from lavibridge.language.base import LanguageModel
from lavibridge.lora import LoraSettings
from lavibridge.vision.base import VisionModel

PROMPTS = ["a red cat", "a boat beside a tree"]
FAMILIES = [(room, kind) for room in ("language", "vision") for kind in registry.kinds(room)]


def toy(room: str, kind: str) -> LanguageModel | VisionModel:
    family = registry.load_kind(room, kind)
    return family(family.Config(source="random"))  # type: ignore[no-any-return]


def output(model: LanguageModel | VisionModel) -> Tensor:
    if isinstance(model, LanguageModel):
        return model.encode(PROMPTS).hidden
    generator = torch.Generator().manual_seed(3)
    given = Conditioning(
        tokens=torch.randn(2, 5, model.spec.context, generator=generator),
        mask=torch.ones(2, 5, dtype=torch.bool),
        pooled=None if model.spec.pooled is None else torch.randn(2, model.spec.pooled, generator=generator),
    )
    latents = torch.randn(2, *model.latent_shape(32, 32), generator=generator)
    return model.predict(latents, torch.tensor([5, 800]), given)


def injected(room: str, kind: str, rank: int = 4, is_trained: bool = True) -> LanguageModel | VisionModel:
    """A toy with LoRA, as if trained: both halves far from their start."""
    model = toy(room, kind)
    lora.inject_lora(
        model.backbone, LoraSettings(rank=rank, dropout=0.0), model.lora_targets, f"{room} model"
    )
    if is_trained:
        generator = torch.Generator().manual_seed(7)
        for parameter in lora.lora_parameters(model.backbone).values():
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


@pytest.mark.parametrize(("room", "kind"), FAMILIES)
def test_starts_as_the_identity_and_changes_when_trained(room: str, kind: str) -> None:
    plain = output(toy(room, kind))
    assert torch.equal(output(injected(room, kind, is_trained=False)), plain)
    assert (output(injected(room, kind)) - plain).abs().max() > 1e-3


@pytest.mark.parametrize(("room", "kind"), FAMILIES)
def test_published_start(room: str, kind: str) -> None:
    """Down is normal with deviation 1 / rank, up is zero, the scale is 1."""
    model = toy(room, kind)
    torch.manual_seed(0)
    lora.inject_lora(model.backbone, LoraSettings(rank=16), model.lora_targets, "model")
    state = lora.lora_state(model.backbone)
    downs = torch.cat([value.flatten() for name, value in state.items() if ".lora_A." in name])
    ups = [value for name, value in state.items() if ".lora_B." in name]
    assert len(ups) * 2 == len(state)
    assert downs.std().item() == pytest.approx(1 / 16, rel=0.04)
    assert abs(downs.mean().item()) < 0.002
    assert all(not value.any() for value in ups)


@pytest.mark.parametrize(("room", "kind"), FAMILIES)
def test_only_lora_needs_gradients(room: str, kind: str) -> None:
    model = injected(room, kind)
    output(model).square().mean().backward()
    trained = lora.lora_parameters(model.backbone)
    with_gradient = {id(value) for value in model.parameters() if value.grad is not None and value.grad.any()}
    assert with_gradient == {id(value) for value in trained.values()}
    assert all(value.dtype == torch.float32 for value in trained.values())


@pytest.mark.parametrize(("room", "kind"), FAMILIES)
def test_merging_is_exact_and_comes_back(room: str, kind: str) -> None:
    model = injected(room, kind)
    before = output(model).detach()
    lora.merge_lora(model.backbone)
    merged = output(model).detach()
    lora.unmerge_lora(model.backbone)
    scale = before.abs().max()
    assert (merged - before).abs().max() <= 1e-5 * scale
    assert (output(model) - before).abs().max() <= 1e-5 * scale
    assert not torch.equal(merged, output(toy(room, kind)))


@pytest.mark.parametrize(("room", "kind"), FAMILIES)
def test_left_out_the_network_is_as_it_was_and_lora_comes_back_to_learn(room: str, kind: str) -> None:
    model = injected(room, kind)
    before = output(model).detach()
    with lora.disable_adapters(model.backbone):
        assert torch.equal(output(model), output(toy(room, kind)))
    assert torch.equal(output(model), before)
    assert all(value.requires_grad for value in lora.lora_parameters(model.backbone).values())


def test_scale_is_one_at_every_rank() -> None:
    for rank in (1, 5):
        layer = nn.Sequential(nn.Linear(6, 8, bias=False))
        weight = layer[0].weight.detach().clone()
        lora.inject_lora(layer, LoraSettings(rank=rank, dropout=0.0), ("0",), "layer")
        state = {name: torch.randn_like(value) for name, value in lora.lora_state(layer).items()}
        lora.load_lora_state(layer, state, "layer")
        up, down = state["base_model.model.0.lora_B.weight"], state["base_model.model.0.lora_A.weight"]
        x = torch.randn(3, 6)
        torch.testing.assert_close(layer(x), x @ (weight + up @ down).T)


@pytest.mark.parametrize(
    ("kind", "layers"), [("bert", 8), ("clip", 8), ("llama", 8), ("t5", 8), ("pixart", 16)]
)
def test_published_number_of_layers(kind: str, layers: int) -> None:
    room = "vision" if kind == "pixart" else "language"
    assert len(lora.lora_parameters(injected(room, kind).backbone)) == 2 * layers


def test_stable_diffusion_at_its_true_size_has_the_published_layers() -> None:
    import diffusers

    with torch.device("meta"):
        network = diffusers.UNet2DConditionModel(cross_attention_dim=768)
        family = registry.load_kind("vision", "sd")
        lora.inject_lora(network, LoraSettings(rank=32), family.lora_targets, "vision model")
        weights = lora.lora_parameters(network)
    assert len(weights) == 448
    assert sum(value.numel() for value in weights.values()) == 28_291_072


@pytest.mark.parametrize(("room", "kind"), FAMILIES)
def test_folder_round_trip(room: str, kind: str, tmp_path: Path) -> None:
    model, other = injected(room, kind), injected(room, kind, is_trained=False)
    lora.save_lora(model.backbone, tmp_path, "random")
    lora.load_lora_state(other.backbone, load_tensors(tmp_path / lora.PEFT_WEIGHTS), "model")
    assert torch.equal(output(other), output(model))
    settings = lora.lora_settings_of(model.backbone)
    assert settings is not None
    assert settings.rank == 4
    assert set(settings.targets or ()) == set(model.lora_targets)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # by PEFT
@pytest.mark.parametrize(
    ("room", "kind", "model"),
    [("language", "t5", transformers.T5EncoderModel), ("vision", "sd", diffusers.UNet2DConditionModel)],
)
def test_peft_reads_the_folders(room: str, kind: str, model: Any, tmp_path: Path) -> None:
    """By itself, too, in a fresh process: tests/interop/test_export.py."""
    own = injected(room, kind)
    lora.save_lora(own.backbone, tmp_path / "lora", str(tmp_path / "base"))
    toy(room, kind).backbone.save_pretrained(tmp_path / "base")  # type: ignore[operator]
    config = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    assert config["r"] == config["lora_alpha"] == 4
    theirs = peft.PeftModel.from_pretrained(
        model.from_pretrained(tmp_path / "base"), tmp_path / "lora"
    ).eval()
    with torch.no_grad():
        found, expected = theirs(**_inputs(kind))[0], own.backbone(**_inputs(kind))[0]
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def _inputs(kind: str) -> dict[str, Tensor]:
    if kind == "t5":
        return {"input_ids": torch.tensor([[5, 6, 7]])}
    generator = torch.Generator().manual_seed(0)
    return {
        "sample": torch.randn(1, 4, 8, 8, generator=generator),
        "timestep": torch.tensor([7]),
        "encoder_hidden_states": torch.randn(1, 3, 48, generator=generator),
    }


def test_rank_larger_than_a_layer() -> None:
    model = toy("language", "t5")
    with pytest.raises(ModelError, match=r"rank 33 is larger than 8 of 8 layers.*use rank 32 or less"):
        lora.inject_lora(model.backbone, LoraSettings(rank=33), model.lora_targets, "language model")
    assert lora.lora_settings_of(model.backbone) is None


def test_targets_that_match_nothing() -> None:
    model = toy("language", "t5")
    with pytest.raises(ModelError, match=r"'q_proj' matches no layer.*SelfAttention"):
        lora.inject_lora(
            model.backbone, LoraSettings(targets=("SelfAttention.q", "q_proj")), (), "language model"
        )
    with pytest.raises(ModelError, match="no targets"):
        lora.inject_lora(model.backbone, LoraSettings(targets=()), (), "language model")


def test_weights_that_do_not_fit() -> None:
    model = injected("language", "t5")
    state = lora.lora_state(model.backbone)
    name = next(iter(state))
    with pytest.raises(ModelError, match="has 15 weights and needs 16"):
        lora.load_lora_state(
            model.backbone, {key: value for key, value in state.items() if key != name}, "model"
        )
    with pytest.raises(ModelError, match=r"lora_A\.weight has shape"):
        lora.load_lora_state(model.backbone, state | {name: torch.zeros(1, 2)}, "model")
    assert torch.equal(lora.lora_state(model.backbone)[name], state[name])


def test_weights_stay_float32_over_a_bfloat16_network() -> None:
    family = registry.load_kind("language", "t5")
    model = family(family.Config(source="random", dtype="bfloat16"))
    lora.inject_lora(model.backbone, LoraSettings(rank=4), model.lora_targets, "language model")
    output(model).square().mean().backward()
    for value in lora.lora_parameters(model.backbone).values():
        assert value.dtype == torch.float32
        assert value.grad is not None
        assert value.grad.dtype == torch.float32
