"""The LoRA keys that ComfyUI knows for a denoiser, derived from Diffusers' configuration of that denoiser.

ComfyUI (Comfy-Org/ComfyUI, read in November 2026) makes them in comfy/lora.py, `model_lora_keys_unet`, from
the tables of comfy/utils.py: `unet_to_diffusers`, `mmdit_to_diffusers`, `flux_to_diffusers`,
`pixart_to_diffusers`. The rules, in our words:

    U-Net            lora_unet_ and Diffusers' name of the layer, underscores for dots
    SD3, FLUX,       transformer. and Diffusers' name of the layer. Where ComfyUI keeps q, k and v (in FLUX's
    PixArt           single blocks also the MLP) in one matrix, the key means a range of its rows.

`load_lora` in comfy/lora.py looks for KEY.alpha and, in comfy/weight_adapter/lora.py, `LoRAAdapter.load`, for
the two factors as KEY.lora_up.weight and .lora_down.weight, or KEY.lora_B.weight and .lora_A.weight.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

SIDES = ((".lora_up.weight", ".lora_down.weight"), (".lora_B.weight", ".lora_A.weight"))


@dataclass(frozen=True)
class Rows:
    """A weight of ComfyUI's network; ``count`` rows from ``first`` on, or all of them."""

    weight: str
    first: int = 0
    count: int | None = None


def comfyui_keys(network: str, config: Mapping[str, Any]) -> dict[str, Rows]:
    """Return key -> place, for a denoiser's class and configuration in Diffusers."""
    if network == "UNet2DConditionModel":
        return {f"lora_unet_{name.replace('.', '_')}": place for name, place in _unet(config)}
    tables = {
        "SD3Transformer2DModel": _sd3,
        "FluxTransformer2DModel": _flux,
        "PixArtTransformer2DModel": _pixart,
    }
    return {f"transformer.{name}": place for name, place in tables[network](config)}


Places = Iterator[tuple[str, Rows]]


def _unet(config: Mapping[str, Any]) -> Places:
    """Blocks are numbered through all levels: at each one its layers, then a change of resolution."""
    levels, layers = len(config["block_out_channels"]), config["layers_per_block"]
    depths = config["transformer_layers_per_block"]
    depths = [depths] * levels if isinstance(depths, int) else list(depths)
    attends = ["CrossAttn" in name for name in config["down_block_types"]]
    for level in range(levels):
        start = 1 + level * (layers + 1)
        for index in range(layers):
            yield from _resnet(f"down_blocks.{level}.resnets.{index}", f"input_blocks.{start + index}.0")
            if attends[level]:
                ours, theirs = f"down_blocks.{level}.attentions.{index}", f"input_blocks.{start + index}.1"
                yield from _attention(ours, theirs, depths[level])
        yield f"down_blocks.{level}.downsamplers.0.conv", Rows(f"input_blocks.{start + layers}.0.op")
    for index in (0, 1):
        yield from _resnet(f"mid_block.resnets.{index}", f"middle_block.{2 * index}")
    yield from _attention("mid_block.attentions.0", "middle_block.1", depths[-1])
    for level in range(levels):
        down = levels - 1 - level
        for index in range(layers + 1):
            place = level * (layers + 1) + index
            yield from _resnet(f"up_blocks.{level}.resnets.{index}", f"output_blocks.{place}.0")
            if attends[down]:
                ours = f"up_blocks.{level}.attentions.{index}"
                yield from _attention(ours, f"output_blocks.{place}.1", depths[down])
        last = f"output_blocks.{level * (layers + 1) + layers}.{2 if attends[down] else 1}.conv"
        yield f"up_blocks.{level}.upsamplers.0.conv", Rows(last)
    for ours, theirs in (
        ("conv_in", "input_blocks.0.0"),
        ("conv_out", "out.2"),
        ("time_embedding.linear_1", "time_embed.0"),
        ("time_embedding.linear_2", "time_embed.2"),
        ("add_embedding.linear_1", "label_emb.0.0"),
        ("add_embedding.linear_2", "label_emb.0.2"),
    ):
        yield ours, Rows(theirs)


def _resnet(ours: str, theirs: str) -> Places:
    yield f"{ours}.conv1", Rows(f"{theirs}.in_layers.2")
    yield f"{ours}.time_emb_proj", Rows(f"{theirs}.emb_layers.1")
    yield f"{ours}.conv2", Rows(f"{theirs}.out_layers.3")
    yield f"{ours}.conv_shortcut", Rows(f"{theirs}.skip_connection")


def _attention(ours: str, theirs: str, depth: int) -> Places:
    inner = [f"attn{number}.{each}" for number in (1, 2) for each in ("to_q", "to_k", "to_v", "to_out.0")]
    inner += ["ff.net.0.proj", "ff.net.2"]
    for name in ("proj_in", "proj_out"):
        yield f"{ours}.{name}", Rows(f"{theirs}.{name}")
    for index in range(depth):
        for name in inner:
            block = f"transformer_blocks.{index}.{name}"
            yield f"{ours}.{block}", Rows(f"{theirs}.{block}")


def _parts(ours: str, names: tuple[str, ...], weight: str, width: int) -> Places:
    """Layers that are equal ranges of one matrix."""
    for index, name in enumerate(names):
        yield f"{ours}.{name}", Rows(weight, index * width, width)


def _sd3(config: Mapping[str, Any]) -> Places:
    """ComfyUI takes the width to be 64 for each block, as it is in the published models."""
    depth = config["num_layers"]
    width = 64 * depth
    for index in range(depth):
        ours, theirs = f"transformer_blocks.{index}", f"joint_blocks.{index}"
        image, text = f"{theirs}.x_block", f"{theirs}.context_block"
        yield from _parts(f"{ours}.attn", ("to_q", "to_k", "to_v"), f"{image}.attn.qkv", width)
        yield from _parts(f"{ours}.attn2", ("to_q", "to_k", "to_v"), f"{image}.attn2.qkv", width)
        added = ("add_q_proj", "add_k_proj", "add_v_proj")
        yield from _parts(f"{ours}.attn", added, f"{text}.attn.qkv", width)
        for name, place in (
            ("attn.to_out.0", f"{image}.attn.proj"),
            ("attn2.to_out.0", f"{image}.attn2.proj"),
            ("attn.to_add_out", f"{text}.attn.proj"),
            ("norm1.linear", f"{image}.adaLN_modulation.1"),
            ("norm1_context.linear", f"{text}.adaLN_modulation.1"),
            ("ff.net.0.proj", f"{image}.mlp.fc1"),
            ("ff.net.2", f"{image}.mlp.fc2"),
            ("ff_context.net.0.proj", f"{text}.mlp.fc1"),
            ("ff_context.net.2", f"{text}.mlp.fc2"),
        ):
            yield f"{ours}.{name}", Rows(place)
    for ours, theirs in (
        ("context_embedder", "context_embedder"),
        ("pos_embed.proj", "x_embedder.proj"),
        ("time_text_embed.timestep_embedder.linear_1", "t_embedder.mlp.0"),
        ("time_text_embed.timestep_embedder.linear_2", "t_embedder.mlp.2"),
        ("time_text_embed.text_embedder.linear_1", "y_embedder.mlp.0"),
        ("time_text_embed.text_embedder.linear_2", "y_embedder.mlp.2"),
        ("norm_out.linear", "final_layer.adaLN_modulation.1"),
        ("proj_out", "final_layer.linear"),
    ):
        yield ours, Rows(theirs)


def _flux(config: Mapping[str, Any]) -> Places:
    width = config["num_attention_heads"] * config["attention_head_dim"]
    for index in range(config["num_layers"]):
        ours, theirs = f"transformer_blocks.{index}", f"double_blocks.{index}"
        yield from _parts(f"{ours}.attn", ("to_q", "to_k", "to_v"), f"{theirs}.img_attn.qkv", width)
        added = ("add_q_proj", "add_k_proj", "add_v_proj")
        yield from _parts(f"{ours}.attn", added, f"{theirs}.txt_attn.qkv", width)
        for side, attention, norm, mlp in (
            ("img", "attn.to_out.0", "norm1", "ff"),
            ("txt", "attn.to_add_out", "norm1_context", "ff_context"),
        ):
            yield f"{ours}.{attention}", Rows(f"{theirs}.{side}_attn.proj")
            yield f"{ours}.{norm}.linear", Rows(f"{theirs}.{side}_mod.lin")
            yield f"{ours}.{mlp}.net.0.proj", Rows(f"{theirs}.{side}_mlp.0")
            yield f"{ours}.{mlp}.net.2", Rows(f"{theirs}.{side}_mlp.2")
    for index in range(config["num_single_layers"]):
        ours, theirs = f"single_transformer_blocks.{index}", f"single_blocks.{index}"
        yield from _parts(f"{ours}.attn", ("to_q", "to_k", "to_v"), f"{theirs}.linear1", width)
        yield f"{ours}.proj_mlp", Rows(f"{theirs}.linear1", 3 * width, 4 * width)
        yield f"{ours}.proj_out", Rows(f"{theirs}.linear2")
        yield f"{ours}.norm.linear", Rows(f"{theirs}.modulation.lin")
    embedders = {"timestep": "time_in", "text": "vector_in", "guidance": "guidance_in"}
    for ours, theirs in embedders.items():
        yield f"time_text_embed.{ours}_embedder.linear_1", Rows(f"{theirs}.in_layer")
        yield f"time_text_embed.{ours}_embedder.linear_2", Rows(f"{theirs}.out_layer")
    for ours, theirs in (
        ("x_embedder", "img_in"),
        ("context_embedder", "txt_in"),
        ("norm_out.linear", "final_layer.adaLN_modulation.1"),
        ("proj_out", "final_layer.linear"),
    ):
        yield ours, Rows(theirs)


def _pixart(config: Mapping[str, Any]) -> Places:
    width = config["num_attention_heads"] * config["attention_head_dim"]
    for index in range(config["num_layers"]):
        ours, theirs = f"transformer_blocks.{index}", f"blocks.{index}"
        yield from _parts(f"{ours}.attn1", ("to_q", "to_k", "to_v"), f"{theirs}.attn.qkv", width)
        yield from _parts(f"{ours}.attn2", ("to_k", "to_v"), f"{theirs}.cross_attn.kv_linear", width)
        yield f"{ours}.attn2.to_q", Rows(f"{theirs}.cross_attn.q_linear")
        yield f"{ours}.attn1.to_out.0", Rows(f"{theirs}.attn.proj")
        yield f"{ours}.attn2.to_out.0", Rows(f"{theirs}.cross_attn.proj")
        yield f"{ours}.ff.net.0.proj", Rows(f"{theirs}.mlp.fc1")
        yield f"{ours}.ff.net.2", Rows(f"{theirs}.mlp.fc2")
    for ours, theirs in (
        ("resolution_embedder", "csize_embedder"),
        ("aspect_ratio_embedder", "ar_embedder"),
        ("timestep_embedder", "t_embedder"),
    ):
        yield f"adaln_single.emb.{ours}.linear_1", Rows(f"{theirs}.mlp.0")
        yield f"adaln_single.emb.{ours}.linear_2", Rows(f"{theirs}.mlp.2")
    for ours, theirs in (
        ("pos_embed.proj", "x_embedder.proj"),
        ("caption_projection.linear_1", "y_embedder.y_proj.fc1"),
        ("caption_projection.linear_2", "y_embedder.y_proj.fc2"),
        ("adaln_single.linear", "t_block.1"),
        ("proj_out", "final_layer.linear"),
    ):
        yield ours, Rows(theirs)
