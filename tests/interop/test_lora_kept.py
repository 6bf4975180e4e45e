"""LoRA that was read stays: beside the bridge's own, through saving, merging and exports."""

from copy import deepcopy
from pathlib import Path

import peft
import pytest
import torch
from added_lora import assert_added, deltas, some_pairs, toy, weights, write_kohya
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file

from lavibridge import Bridge, export, read_lora_file
from lavibridge.core.errors import ModelError
from lavibridge.interop.lora_files import LORA_FILE

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]


def test_read_lora_stays_through_saving_and_exports_and_beside_the_bridge_s_own(tmp_path: Path) -> None:
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    bridge = Bridge.compose(
        {"kind": "t5", "source": "random"},
        {"kind": "sd", "source": "random"},
        language_lora={"rank": 2},
        vision_lora={"rank": 2, "dropout": 0.0},
    ).eval()
    for value in bridge.trained_parameters()["vision_lora"].values():
        value.data += 0.1
    before = weights(bridge)
    first = some_pairs(bridge.vision.backbone, (5,), every=2)
    second = some_pairs(bridge.vision.backbone, (3, 7), every=3)
    write_kohya(first, one, {}, alpha=10.0)
    write_kohya(second, two, {})
    read_lora_file(bridge, one)
    bridge.merge()
    read_lora_file(bridge, two)
    bridge.unmerge()
    wanted = deltas(first, lambda name, rank: 2.0)
    for name, change in deltas(second, lambda name, rank: 1.0).items():
        wanted[name] = wanted.get(name, 0) + change
    assert_added(bridge, before, wanted)
    with pytest.raises(ModelError, match="this bridge already contains"):
        read_lora_file(bridge, one)
    bridge.save_pretrained(tmp_path / "saved")
    loaded = Bridge.from_pretrained(tmp_path / "saved", device="cpu")
    assert_added(loaded, before, wanted)
    assert [each.name for each in loaded.vision.folded] == ["one.safetensors", "two.safetensors"]
    assert bridge.origin.keys() == {"lora one.safetensors", "lora two.safetensors"}
    with pytest.raises(ModelError, match="this bridge already contains"):
        read_lora_file(loaded, two)
    for index, pairs in enumerate((first, second)):  # PEFT reads the same from the folder
        other = deepcopy(toy().vision.backbone)
        given = peft.PeftModel.from_pretrained(other, tmp_path / f"saved/vision_folded/{index}")
        found = {
            name: layer.get_delta_weight("default")
            for name, layer in other.named_modules()
            if isinstance(layer, LoraLayer)
        }
        assert given.peft_config["default"].r == max(up.shape[1] for up, _ in pairs.values())
        assert found.keys() == pairs.keys()
        scale = 2.0 if index == 0 else 1.0
        for name, change in deltas(pairs, lambda name, rank, scale=scale: scale).items():  # type: ignore[misc]
            torch.testing.assert_close(found[name], change, rtol=0, atol=1e-6)
    plain = toy()
    base = weights(plain)
    read_lora_file(plain, export(bridge, "kohya", tmp_path / "kohya") / LORA_FILE)
    own = {name.removesuffix(".weight"): before[name] - base[name] for name in before}
    both = {name: change + wanted.get(name, 0) for name, change in own.items()}
    assert_added(plain, base, both)
    assert load_file(tmp_path / "kohya" / LORA_FILE)["lora_unet_conv_in.lora_down.weight"].shape[0] == 5 + 3
