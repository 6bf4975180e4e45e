"""LoRA files of other tools are added at their true strength, or refused by the name of what they are."""

import json
import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import diffusers
import peft
import pytest
import torch
from added_lora import assert_added, deltas, kohya, some_pairs, toy, weights, write_kohya
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import Tensor, nn

from lavibridge import read_lora_file
from lavibridge.core.errors import ModelError
from lavibridge.core.low_rank import named_layers

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]
SETTINGS: dict[str, dict[str, Any]] = {
    "alpha": {"r": 4, "lora_alpha": 16},
    "rslora": {"r": 4, "lora_alpha": 6, "use_rslora": True},
    "patterns": {
        "r": 4,
        "lora_alpha": 8,
        "rank_pattern": {"to_q": 2, r"down_blocks.*to_k": 3},
        "alpha_pattern": {"to_v": 5, "^mid_block.attentions.0.transformer_blocks.0.attn1.to_k": 1},
    },
    "rslora of patterns": {
        "r": 3,
        "lora_alpha": 7,
        "use_rslora": True,
        "rank_pattern": {"attn2.to_q": 5},
        "alpha_pattern": {"to_q": 2},
    },
}
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "conv1", "proj_in"]


def by_peft(settings: dict[str, Any]) -> tuple[Any, dict[str, Tensor]]:
    """PEFT's own model with such LoRA, drawn, and what it adds to each weight by its own account."""
    network = deepcopy(toy().vision.backbone)
    model = peft.get_peft_model(network, peft.LoraConfig(target_modules=TARGETS, **settings))
    generator = torch.Generator().manual_seed(9)
    for name, value in model.named_parameters():
        if "lora_" in name:
            value.data = 0.1 * torch.randn(value.shape, generator=generator)
    wanted = {
        name: layer.get_delta_weight("default").detach()
        for name, layer in network.named_modules()
        if isinstance(layer, LoraLayer)
    }
    return model, wanted


@pytest.mark.parametrize(
    ("form", "settings"),
    [
        *(("folder", settings) for settings in SETTINGS),
        *((form, "rslora of patterns") for form in ("file", "bin", "pipeline", "model")),
    ],
)
def test_what_peft_and_diffusers_save_has_peft_s_own_strength(
    form: str, settings: str, tmp_path: Path
) -> None:
    model, wanted = by_peft(SETTINGS[settings])
    network = model.get_base_model()
    path = tmp_path
    if form in ("folder", "file", "bin"):
        model.save_pretrained(tmp_path, safe_serialization=form != "bin")
        path = tmp_path / "adapter_model.safetensors" if form == "file" else tmp_path
    elif form == "model":
        network.save_lora_adapter(tmp_path)
    else:
        config = network.peft_config["default"].to_dict()
        config["target_modules"] = sorted(config["target_modules"])
        diffusers.StableDiffusionPipeline.save_lora_weights(
            tmp_path,
            unet_lora_layers=peft.get_peft_model_state_dict(network),
            unet_lora_adapter_metadata=config,
        )
    bridge = toy()
    before = weights(bridge)
    report = read_lora_file(bridge, path)
    assert report.unmatched == ()
    assert len(report.matched) == 2 * len(wanted)
    assert_added(bridge, before, wanted)


def test_settings_that_say_more_than_lora_or_another_rank_are_refused(tmp_path: Path) -> None:
    model, _ = by_peft({"r": 2, "lora_alpha": 8})
    model.save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    plain = json.loads(path.read_text())
    for changed, match in (
        ({"use_dora": True}, "say DoRA, but .* has no magnitude"),
        ({"peft_type": "LOKR", "alpha": 8}, "say LOKR, but .* has LORA"),
        ({"peft_type": "OFT"}, "say OFT"),
        ({"use_qalora": True}, "use_qalora"),
        ({"bias": "all"}, "bias: all"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights: pissa"),
        ({"modules_to_save": ["conv_in"]}, "modules_to_save"),
        ({"r": 4}, "has rank 2 at .* but its settings say 4"),
        ({"lora_alpha": None}, "lack r or lora_alpha"),
    ):
        path.write_text(json.dumps(plain | changed))
        bridge = toy()
        before = weights(bridge)
        with pytest.raises(ModelError, match=match):
            read_lora_file(bridge, tmp_path)
        assert_added(bridge, before, {})
    path.unlink()
    with pytest.raises(ModelError, match=r"has no adapter_config\.json"):
        read_lora_file(toy(), tmp_path)
    with pytest.raises(ModelError, match="holds 0 files that may be LoRA"):
        read_lora_file(toy(), tmp_path / "..")


def test_kohya_s_header_counts_where_there_are_no_alphas(tmp_path: Path) -> None:
    bridge, path = toy(), tmp_path / "lora.safetensors"
    network = bridge.vision.backbone
    large = {
        name
        for name, layer in named_layers(network).items()
        if isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1)
    }
    pairs = some_pairs(network, (4,)) | {
        name: pair for name, pair in some_pairs(network, (2,)).items() if name in large
    }
    told = {
        "ss_network_dim": "4",
        "ss_network_alpha": "1.0",
        "ss_network_args": json.dumps({"conv_dim": "2", "conv_alpha": "6"}),
    }
    before = weights(bridge)
    write_kohya(pairs, path, told)
    read_lora_file(bridge, path)
    assert_added(bridge, before, deltas(pairs, lambda name, rank: 3.0 if name in large else 0.25))
    bridge = toy()
    write_kohya(pairs, path, told, alpha=5.0)
    read_lora_file(bridge, path)
    assert_added(bridge, before, deltas(pairs, lambda name, rank: 5.0 / rank))
    write_kohya(pairs, path, told | {"ss_network_alpha": "None"})
    with pytest.raises(ModelError, match=r"ss_network_alpha must be numbers, found .* and None"):
        read_lora_file(toy(), path)


def test_a_kernel_in_two_and_linears_as_convolutions(tmp_path: Path) -> None:
    """LyCORIS' Tucker form of a convolution: up, after mid, after down."""
    bridge, path = toy(), tmp_path / "lora.safetensors"
    own = named_layers(bridge.vision.backbone)
    conv, linear = (
        "down_blocks.0.resnets.0.conv1",
        "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
    )
    drawn = torch.Generator().manual_seed(0)
    width = own[conv].weight.shape[:2]
    up, mid, down = (
        torch.randn(shape, generator=drawn)
        for shape in ((width[0], 3, 1, 1), (3, 3, 3, 3), (3, width[1], 1, 1))
    )
    flat_up, flat_down = torch.randn(own[linear].out_features, 2), torch.randn(2, own[linear].in_features)
    state = {
        f"{kohya(conv)}.lora_up.weight": up,
        f"{kohya(conv)}.lora_mid.weight": mid,
        f"{kohya(conv)}.lora_down.weight": down,
        f"{kohya(conv)}.alpha": torch.tensor(1.5),
        f"{kohya(linear)}.lora_up.weight": flat_up[..., None, None],
        f"{kohya(linear)}.lora_down.weight": flat_down[..., None, None],
    }
    save_file(state, path)
    before = weights(bridge)
    read_lora_file(bridge, path)
    x = torch.randn(1, width[1], 5, 5, generator=drawn)
    through = nn.functional.conv2d(nn.functional.conv2d(nn.functional.conv2d(x, down), mid), up) * 0.5
    change = weights(bridge)[f"{conv}.weight"] - before[f"{conv}.weight"]
    torch.testing.assert_close(nn.functional.conv2d(x, change), through, rtol=1e-4, atol=1e-4)
    change = weights(bridge)[f"{linear}.weight"] - before[f"{linear}.weight"]
    torch.testing.assert_close(change, flat_up @ flat_down, rtol=0, atol=1e-6)
    save_file(
        {key: value[..., 0, 0].clone() if "mid" in key else value for key, value in state.items()}, path
    )
    with pytest.raises(ModelError, match="does not fit"):
        read_lora_file(toy(), path)


@pytest.mark.parametrize(
    ("rest", "method"),
    [
        ("oft_blocks", "OFT"),
        ("oft_R.weight", "OFT"),
        ("boft_R", "BOFT"),
        ("on_input", "IA3"),
        ("a1.weight", "GLoRA"),
        ("diff", "whole weights"),
        ("diff_b", "whole weights"),
        ("lora_B.bias", "biases"),
        ("something_new", "changes 'conv_in' by 'something_new'"),
    ],
)
@pytest.mark.parametrize("stem", ["lora_unet_conv_in", "unet.conv_in", "lora_unet_input_blocks_0_0"])
def test_other_methods_are_refused_by_name(rest: str, method: str, stem: str, tmp_path: Path) -> None:
    bridge, path = toy(), tmp_path / "lora.safetensors"
    state = write_kohya(some_pairs(bridge.vision.backbone, every=9), path, {})
    save_file(state | {f"{stem}.{rest}": torch.ones(2)}, path)
    before = weights(bridge)
    with pytest.raises(ModelError, match=method):
        read_lora_file(bridge, path)
    assert_added(bridge, before, {})


def test_damaged_files_change_nothing(tmp_path: Path) -> None:
    bridge, path = toy(), tmp_path / "lora.safetensors"
    before = weights(bridge)
    state = write_kohya(some_pairs(bridge.vision.backbone, every=5), path, {}, alpha=1.0)
    last = sorted(key for key in state if key.endswith("lora_up.weight"))[-1]
    stem = last.removesuffix(".lora_up.weight")
    for changed, match in (
        ({last: state[last] * math.nan}, "holds NaN"),
        ({f"{stem}.alpha": torch.tensor(math.inf)}, "holds NaN or infinite"),
        ({f"{stem}.alpha": torch.ones(3)}, "must be one number"),
        ({f"{stem}.lora_B.weight": state[last].clone()}, "holds two weights for one layer"),
    ):
        save_file(state | changed, path)
        with pytest.raises(ModelError, match=match):
            read_lora_file(bridge, path)
    assert_added(bridge, before, {})
