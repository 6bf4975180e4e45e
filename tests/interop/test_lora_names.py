"""Every tool's names for a layer lead to it, and what is for no layer here is counted and named."""

from collections.abc import Callable
from pathlib import Path

import diffusers
import pytest
import torch
from added_lora import assert_added, deltas, kohya, some_pairs, toy, weights, write_kohya
from diffusers.utils import convert_unet_state_dict_to_peft
from safetensors.torch import save_file
from torch import Tensor, nn

from lavibridge import Bridge, BridgePipeline, read_lora_file
from lavibridge.bridge.lora_names import DENOISER_PREFIXES, denoiser_lora_names, find_lora_layer
from lavibridge.core.errors import ModelError
from lavibridge.core.low_rank import named_layers
from lavibridge.interop.merged_weights import merged_weights

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]


def old_diffusers(name: str) -> tuple[str, str, str]:
    """Keys of up, down and alpha before Diffusers took PEFT's names."""
    stem, _, last = name.removesuffix(".0").rpartition(".")
    if not last.startswith("to_"):
        return f"{name}.lora.up.weight", f"{name}.lora.down.weight", f"{name}.alpha"
    start = f"{stem}.processor.{last}_lora"
    return f"{start}.up.weight", f"{start}.down.weight", f"{start}.alpha"


def sides(start: str, up: str, down: str) -> tuple[str, str, str]:
    return f"{start}.{up}.weight", f"{start}.{down}.weight", f"{start}.alpha"


NAMES: dict[str, Callable[[str], tuple[str, str, str]]] = {
    "kohya": lambda name: sides(kohya(name), "lora_up", "lora_down"),
    "kohya with PEFT's sides": lambda name: sides(kohya(name), "lora_B", "lora_A"),
    "diffusers": lambda name: sides(f"unet.{name}", "lora_B", "lora_A"),
    "diffusers between": lambda name: sides(f"unet.{name}", "lora.up", "lora.down"),
    "comfyui": lambda name: sides(f"diffusion_model.{name}", "lora_up", "lora_down"),
    "a whole checkpoint's": lambda name: sides(f"model.diffusion_model.{name}", "lora_B", "lora_A"),
    "bare": lambda name: sides(name, "lora_B", "lora_A"),
    "bare with an adapter's name": lambda name: sides(name, "lora_B.default", "lora_A.default"),
    "old": old_diffusers,
    "old in a pipeline": lambda name: tuple(f"unet.{key}" for key in old_diffusers(name)),  # type: ignore[return-value]
}


@pytest.mark.parametrize("form", NAMES)
def test_every_tool_s_names_and_alphas_are_read(form: str, tmp_path: Path) -> None:
    bridge = toy()
    before = weights(bridge)
    pairs = some_pairs(bridge.vision.backbone, ranks=(1, 3, 40), every=2)
    state: dict[str, Tensor] = {}
    for index, (name, (up, down)) in enumerate(pairs.items()):
        keys = NAMES[form](name)
        state |= {keys[0]: up, keys[1]: down}
        if index % 2:
            state[keys[2]] = torch.tensor(7.0)
    names = list(pairs)
    save_file(state, tmp_path / "lora.safetensors")
    report = read_lora_file(bridge, tmp_path / "lora.safetensors")
    assert set(report.matched) == set(state)
    assert_added(
        bridge, before, deltas(pairs, lambda name, rank: 7.0 / rank if names.index(name) % 2 else 1.0)
    )


@pytest.mark.parametrize(
    ("vision", "prefix"),
    [
        ("pixart", "transformer."),
        ("sd3", "diffusion_model."),
        ("sana", "transformer."),
        ("flux", ""),
        ("ldm", "unet."),
    ],
)
def test_other_denoisers_are_read_by_the_names_of_diffusers(vision: str, prefix: str, tmp_path: Path) -> None:
    bridge = toy(vision)
    before = weights(bridge)
    grouped = {
        name
        for name, layer in named_layers(bridge.vision.backbone).items()
        if getattr(layer, "groups", 1) > 1
    }
    pairs = {
        name: pair
        for name, pair in some_pairs(bridge.vision.backbone, (2, 5), every=3).items()
        if name not in grouped
    }
    state = {}
    for name, (up, down) in pairs.items():
        state |= {f"{prefix}{name}.lora_B.weight": up, f"{prefix}{name}.lora_A.weight": down}
    save_file(state, tmp_path / "lora.safetensors")
    assert read_lora_file(bridge, tmp_path / "lora.safetensors").unmatched == ()
    assert_added(bridge, before, deltas(pairs, lambda name, rank: 1.0))


def sdxl() -> nn.Module:
    with torch.device("meta"):
        return diffusers.UNet2DConditionModel(
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20),
            cross_attention_dim=2048,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
            use_linear_projection=True,
        )


PUBLISHED_SDXL = {
    "conv_in": "input_blocks_0_0",
    "down_blocks.0.resnets.0.conv1": "input_blocks_1_0_in_layers_2",
    "down_blocks.0.downsamplers.0.conv": "input_blocks_3_0_op",
    "down_blocks.1.attentions.1.proj_out": "input_blocks_5_1_proj_out",
    "down_blocks.2.resnets.0.conv_shortcut": "input_blocks_7_0_skip_connection",
    "down_blocks.2.attentions.1.proj_in": "input_blocks_8_1_proj_in",
    "mid_block.resnets.1.time_emb_proj": "middle_block_2_emb_layers_1",
    "mid_block.attentions.0.transformer_blocks.9.ff.net.2": "middle_block_1_transformer_blocks_9_ff_net_2",
    "up_blocks.0.upsamplers.0.conv": "output_blocks_2_2_conv",
    "up_blocks.1.attentions.2.proj_out": "output_blocks_5_1_proj_out",
    "up_blocks.2.resnets.2.conv2": "output_blocks_8_0_out_layers_3",
    "time_embedding.linear_2": "time_embed_2",
    "add_embedding.linear_1": "label_emb_0_0",
    "conv_out": "out_2",
}
"""Of kohya's files for SDXL."""


def test_the_published_names_of_sdxl_are_those_that_diffusers_converts() -> None:
    """All of them: what our table calls each layer, the library's converter calls back."""
    network = sdxl()
    known = denoiser_lora_names(network)
    flat = {name: name.replace(".", "_") for name in named_layers(network)}
    published = {
        layer: name
        for name, layer in known.items()
        if name != flat[layer] and not name.endswith(("to_q_lora", "to_k_lora", "to_v_lora", "to_out_lora"))
    }
    assert published.keys() == flat.keys()
    assert {layer: published[layer] for layer in PUBLISHED_SDXL} == PUBLISHED_SDXL
    state = {}
    for name in published.values():
        for side in ("down", "up"):
            state[f"lora_unet_{name}.lora_{side}.weight"] = torch.zeros(1)
    back, _ = diffusers.StableDiffusionXLPipeline.lora_state_dict(dict(state), unet_config=network.config)
    found = convert_unet_state_dict_to_peft({key.removeprefix("unet."): value for key, value in back.items()})
    by_value = {id(value): key.rpartition(".lora_")[0].replace(".", "_") for key, value in found.items()}
    for key, value in state.items():
        layer, rest = find_lora_layer(key, known, DENOISER_PREFIXES) or ("", "")
        assert flat[layer] == by_value[id(value)]
        assert rest in ("lora_up.weight", "lora_down.weight")


PUBLISHED_SD = {
    "input_blocks.1.1.proj_in": "down_blocks.0.attentions.0.proj_in",
    "input_blocks.10.0.in_layers.2": "down_blocks.3.resnets.0.conv1",
    "input_blocks.11.0.emb_layers.1": "down_blocks.3.resnets.1.time_emb_proj",
    "output_blocks.2.1.conv": "up_blocks.0.upsamplers.0.conv",
    "output_blocks.5.2.conv": "up_blocks.1.upsamplers.0.conv",
    "output_blocks.11.1.proj_out": "up_blocks.3.attentions.2.proj_out",
}
"""Of v1-inference.yaml's U-Net, whose places have two digits."""


@pytest.mark.parametrize(("prefix", "dot"), [("diffusion_model.", "."), ("lora_unet_", "_")])
def test_the_published_names_of_stable_diffusion(prefix: str, dot: str) -> None:
    with torch.device("meta"):
        known = denoiser_lora_names(diffusers.UNet2DConditionModel(cross_attention_dim=768))
    for name, layer in PUBLISHED_SD.items():
        key = f"{prefix}{name.replace('.', dot)}.lora_up.weight"
        assert find_lora_layer(key, known, DENOISER_PREFIXES) == (layer, "lora_up.weight")


def test_the_text_encoder_s_layers_are_taken_where_the_bridge_reads_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "lora.safetensors"
    native = BridgePipeline.native("mini-sd", device="cpu").bridge
    clip = native.language.backbone
    pairs, text = some_pairs(native.vision.backbone, every=20), some_pairs(clip, every=2)
    state = write_kohya(pairs, path, {})
    for start in ("lora_te_text_model_", "lora_te2_text_model_"):
        for name, (up, down) in text.items():
            stem = f"{start}{name.replace('.', '_')}"
            state |= {f"{stem}.lora_up.weight": up, f"{stem}.lora_down.weight": down}
            state[f"{stem}.alpha"] = torch.tensor(1.0)
    save_file({key: value.clone() for key, value in state.items()}, path)
    before, before_text = weights(native), merged_weights(clip, False)
    identity = native.language.identity()
    report = read_lora_file(native, path)
    assert_added(native, before, deltas(pairs, lambda name, rank: 1.0))
    wanted = deltas(text, lambda name, rank: 1.0 / rank)
    for name, value in merged_weights(clip, False).items():
        change = wanted.get(name.removesuffix(".weight"), torch.zeros(()))
        torch.testing.assert_close(value - before_text[name], change.expand_as(value), rtol=0, atol=1e-6)
    assert native.language.identity() != identity
    assert all(key.startswith("lora_te2_") for key in report.unmatched)
    assert len(report.unmatched) == 3 * len(text)
    capsys.readouterr()
    other = Bridge.compose("mini-t5-small", "mini-sd", language_lora=None, vision_lora=None)
    report = read_lora_file(other, path)
    assert len(report.unmatched) == 6 * len(text)
    assert_added(other, before, deltas(pairs, lambda name, rank: 1.0))
    said = " ".join(capsys.readouterr().err.split())
    assert f"does not use {6 * len(text)} of {len(state)} keys of" in said
    assert f"({6 * len(text)} of a text encoder)" in said


def test_kohya_s_names_for_flux_are_converted_by_diffusers(tmp_path: Path) -> None:
    """Its authors' layout has queries, keys and values in one layer."""
    bridge, path = toy("flux"), tmp_path / "lora.safetensors"
    before, generator = weights(bridge), torch.Generator().manual_seed(5)
    block = "transformer_blocks.0"
    own = named_layers(bridge.vision.backbone)
    width = own[f"{block}.attn.to_q"].weight.shape[0]

    def pair(layer: str, rows: int) -> tuple[Tensor, Tensor]:
        columns = own[f"{block}.{layer}"].weight.shape[1]
        return torch.randn(rows, 2, generator=generator), torch.randn(2, columns, generator=generator)

    fused, mlp = pair("attn.to_q", 3 * width), pair("ff.net.2", width)
    state = {}
    for name, (up, down) in {"img_attn_qkv": fused, "img_mlp_2": mlp}.items():
        stem = f"lora_unet_double_blocks_0_{name}"
        state |= {f"{stem}.lora_up.weight": up, f"{stem}.lora_down.weight": down}
        state[f"{stem}.alpha"] = torch.tensor(1.0)
    save_file(state, path)
    assert read_lora_file(bridge, path).unmatched == ()
    rows = zip(("to_q", "to_k", "to_v"), fused[0].chunk(3), strict=True)
    wanted = {f"{block}.attn.{name}": up @ fused[1] / 2 for name, up in rows}
    assert_added(bridge, before, {**wanted, f"{block}.ff.net.2": mlp[0] @ mlp[1] / 2})
    save_file({f"lora_unet_nothing.{side}": torch.ones(2) for side in ("alpha", "dora_scale")}, path)
    with pytest.raises(ModelError, match="none of its 2 keys"):
        read_lora_file(toy(), path)
    save_file({"lora_unet_double_blocks_0_other.lora_down.weight": torch.ones(2, 2)}, path)
    with pytest.raises(ModelError, match="Diffusers cannot convert the file"):
        read_lora_file(toy("flux"), path)
