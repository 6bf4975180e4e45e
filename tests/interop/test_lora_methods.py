"""LoKr, LoHa and DoRA, linear and convolution, have the effect that PEFT and Diffusers give them."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import diffusers
import peft
import pytest
import torch
from added_lora import assert_added, kohya, some_pairs, toy, weights, write_kohya
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lavibridge import Bridge, export, read_lora_file
from lavibridge.core.errors import ModelError
from lavibridge.core.low_rank import named_layers

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]
LINEAR, CONV = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", "down_blocks.0.resnets.0.conv1"
TARGETS = ["to_q", "to_v", "conv1", "proj_in"]
METHODS: dict[str, peft.PeftConfig] = {
    "lokr": peft.LoKrConfig(r=2, alpha=3, target_modules=TARGETS),
    "lokr of four": peft.LoKrConfig(
        r=2, alpha=4, target_modules=TARGETS, decompose_both=True, decompose_factor=16
    ),
    "lokr of whole matrices": peft.LoKrConfig(r=64, alpha=16, target_modules=TARGETS),
    "lokr with kernels": peft.LoKrConfig(r=2, alpha=2, target_modules=TARGETS, use_effective_conv2d=True),
    "loha": peft.LoHaConfig(r=3, alpha=2, target_modules=TARGETS),
    "loha with kernels": peft.LoHaConfig(r=3, alpha=6, target_modules=TARGETS, use_effective_conv2d=True),
    "dora": peft.LoraConfig(r=3, lora_alpha=5, target_modules=TARGETS, use_dora=True),
    "dora with rslora": peft.LoraConfig(
        r=3, lora_alpha=5, target_modules=TARGETS, use_dora=True, use_rslora=True
    ),
}


def by_peft(config: peft.PeftConfig, folder: Path) -> dict[str, Tensor]:
    """Save an adapter with PEFT, drawn, and return what PEFT's merging adds to each weight."""
    network = deepcopy(toy().vision.backbone)
    before = {name: layer.weight.detach().clone() for name, layer in named_layers(network).items()}
    model = peft.get_peft_model(network, config)
    generator = torch.Generator().manual_seed(9)
    for name, value in model.named_parameters():
        if any(mark in name for mark in ("lora_A", "lora_B", "lokr_", "hada_")):
            value.data = 0.3 * torch.randn(value.shape, generator=generator)
        elif "magnitude" in name:
            value.data = value.data * (1 + 0.3 * torch.rand(value.shape, generator=generator))
    model.save_pretrained(folder)
    merged = named_layers(model.merge_and_unload())
    return {name: merged[name].weight.detach() - value for name, value in before.items()}


@pytest.mark.parametrize("method", METHODS)
def test_an_adapter_of_peft_has_the_effect_of_its_merging(method: str, tmp_path: Path) -> None:
    wanted = by_peft(deepcopy(METHODS[method]), tmp_path)
    changed = {name for name, change in wanted.items() if change.abs().max() > 1e-3}
    assert {LINEAR, CONV} <= changed
    bridge = toy()
    before = weights(bridge)
    report = read_lora_file(bridge, tmp_path)
    assert report.unmatched == ()
    assert_added(bridge, before, {name: wanted[name] for name in changed})
    (folded,) = bridge.vision.folded
    assert folded.changes.keys() == changed
    bridge.save_pretrained(tmp_path / "saved")
    assert_added(
        Bridge.from_pretrained(tmp_path / "saved", device="cpu"),
        before,
        {name: wanted[name] for name in changed},
    )
    with pytest.raises(ModelError, match="which is not plain LoRA"):
        export(bridge, "kohya", tmp_path / "kohya")


def lycoris(layer: nn.Module, generator: torch.Generator) -> tuple[dict[str, Tensor], Tensor]:
    """One layer of LyCORIS' LoKr whose second matrix has rank 2 and alpha 3, and its change by definition."""
    shape = layer.weight.shape  # type: ignore[union-attr]
    inner = shape[1:].numel() // 4  # type: ignore[union-attr, operator]
    first, left, right = (
        torch.randn(size, generator=generator)
        for size in ((2, 4), (shape[0] // 2, 2), (2, inner))  # type: ignore[index, operator]
    )
    change = torch.kron(first, left @ right).reshape(shape) * 3 / 2  # type: ignore[arg-type]
    return {"lokr_w1": first, "lokr_w2_a": left, "lokr_w2_b": right, "alpha": torch.tensor(3.0)}, change


@pytest.mark.parametrize("axis", [0, 1], ids=["of each output", "of each input"])
def test_lycoris_scales_lokr_by_its_rank_and_decomposes_by_the_magnitude_s_shape(
    axis: int, tmp_path: Path
) -> None:
    bridge, path = toy(), tmp_path / "lokr.safetensors"
    own, generator = named_layers(bridge.vision.backbone), torch.Generator().manual_seed(2)
    before, state, wanted = weights(bridge), {}, {}
    for name in (LINEAR, CONV):
        parts, change = lycoris(own[name], generator)
        weight = before[f"{name}.weight"]
        size = [weight.shape[axis] if each == axis else 1 for each in range(weight.ndim)]
        magnitude = 1 + torch.rand(size, generator=generator)
        changed = weight + 0.5 * change
        norm = (
            changed.square().sum([each for each in range(weight.ndim) if each != axis], keepdim=True).sqrt()
        )
        wanted[name] = magnitude * changed / norm - weight
        state |= {f"lycoris_{name.replace('.', '_')}.{part}": value for part, value in parts.items()}
        state[f"lycoris_{name.replace('.', '_')}.dora_scale"] = magnitude
    save_file(state, path)
    assert read_lora_file(bridge, path, strength=0.5).unmatched == ()
    assert_added(bridge, before, wanted)


def by_diffusers(bridge: Bridge, files: list[tuple[Path, float]]) -> dict[str, Tensor]:
    """The U-Net's weights after Diffusers' own loading and fusing."""
    unet = deepcopy(bridge.vision.backbone)
    pipe = diffusers.StableDiffusionPipeline(
        vae=bridge.vision.autoencoder,
        text_encoder=None,
        tokenizer=None,
        unet=unet,
        scheduler=bridge.vision.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    names = [f"file{index}" for index in range(len(files))]
    for name, (path, _) in zip(names, files, strict=True):
        pipe.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name=name)
    pipe.set_adapters(names, [strength for _, strength in files])
    pipe.fuse_lora(adapter_names=names)
    pipe.unload_lora_weights()
    return {name: value.clone() for name, value in unet.state_dict().items()}


@pytest.mark.filterwarnings("ignore::FutureWarning:diffusers")
@pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute:UserWarning")
def test_strengths_and_two_files_at_once_are_those_of_diffusers(tmp_path: Path) -> None:
    bridge = toy()
    attention = {
        name: pair
        for name, pair in some_pairs(bridge.vision.backbone, (2, 4)).items()
        if name.endswith(("to_q", "to_v"))
    }
    first = tmp_path / "first.safetensors"
    write_kohya(attention, first, {}, alpha=1.0)
    by_peft(deepcopy(METHODS["dora"]), tmp_path / "dora")
    second = tmp_path / "pytorch_lora_weights.safetensors"
    saved = load_file(tmp_path / "dora" / "adapter_model.safetensors")
    config = peft.PeftConfig.from_pretrained(tmp_path / "dora").to_dict()
    config["target_modules"] = sorted(config["target_modules"])
    diffusers.StableDiffusionPipeline.save_lora_weights(
        tmp_path,
        unet_lora_layers={key.removeprefix("base_model.model."): value for key, value in saved.items()},
        unet_lora_adapter_metadata=config,
    )
    files = [(second, 0.7), (first, -1.5)]
    expected = by_diffusers(bridge, files)
    before = weights(bridge)
    chosen = {"kind": "sd", "source": "random", "lora_files": [{"path": p, "strength": s} for p, s in files]}
    both = Bridge.compose({"kind": "t5", "source": "random"}, chosen, language_lora=None, vision_lora=None)
    found = weights(both)
    assert found.keys() == expected.keys() == before.keys()
    for name, value in expected.items():
        assert (found[name] - value).abs().max() <= 1e-5, name
    assert (found[f"{LINEAR}.weight"] - before[f"{LINEAR}.weight"]).abs().max() > 1e-2


def changed(state: dict[str, Tensor], **changes: Any) -> dict[str, Tensor]:
    stem = kohya(LINEAR)
    return {
        **{key: value for key, value in state.items() if key.removeprefix(f"{stem}.") not in changes},
        **{f"{stem}.{role}": value for role, value in changes.items() if value is not None},
    }


def test_changes_that_are_not_whole_or_do_not_fit_change_nothing(tmp_path: Path) -> None:
    bridge, path = toy(), tmp_path / "lokr.safetensors"
    layer = named_layers(bridge.vision.backbone)[LINEAR]
    parts, _ = lycoris(layer, torch.Generator().manual_seed(2))
    state = {f"{kohya(LINEAR)}.{part}": value for part, value in parts.items()}
    before, width = weights(bridge), layer.weight.shape[0]
    for wrong, match in (
        ({"lokr_w2_b": None}, "does not fit"),
        ({"lokr_w1": torch.ones(3, 4)}, r"does not fit .*lokr_w1 \(3, 4\)"),
        ({"hada_w1_a": torch.ones(2, 2)}, "no whole change of a layer"),
        ({"lokr_w1": torch.full((2, 4), torch.inf)}, "NaN or infinite"),
        ({"dora_scale": torch.ones(width + 1, 1)}, "magnitude has shape"),
        ({"dora_scale": torch.full((width, 1), torch.nan)}, "NaN or infinite"),
    ):
        save_file(changed(state, **wrong), path)
        with pytest.raises(ModelError, match=match):
            read_lora_file(bridge, path)
    save_file({f"{kohya(LINEAR)}.hada_{side}": torch.ones(2, 2) for side in ("w1_a", "w1_b")}, path)
    with pytest.raises(ModelError, match="does not fit"):
        read_lora_file(bridge, path)
    save_file({f"{kohya(LINEAR)}.dora_scale": torch.ones(width, 1)}, path)
    with pytest.raises(ModelError, match="no whole change of a layer"):
        read_lora_file(bridge, path)
    assert_added(bridge, before, {})
