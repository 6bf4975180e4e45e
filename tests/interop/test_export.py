"""Bridges in other tools' formats: their own loaders open them, and what comes back is the same."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lavibridge import (
    Bridge,
    connect,
    export,
    import_released,
    lora,
    prompt_inputs,
    read_lora_file,
    to_diffusers,
)
from lavibridge.cli.main import app
from lavibridge.core import registry
from lavibridge.core.contracts import Conditioning
from lavibridge.core.errors import ModelError, RecipeError, RunError
from lavibridge.core.paths import models_folder
from lavibridge.interop.lora_files import LORA_FILE
from lavibridge.interop.merged_weights import merged_weights

# Diffusers reads torch tensors by a NumPy call that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
MINI = "mini-sd"
GOLDEN = Path(__file__).parents[3] / "shared" / "golden"


def compose(vision: str = "sd", **options: Any) -> Bridge:
    """A bridge as if trained; a toy where ``vision`` is a kind."""
    small = {"rank": 4, "dropout": 0.0}
    source = {"source": MINI} if vision == MINI else {"kind": vision, "source": "random"}
    bridge = Bridge.compose(
        {"kind": "t5", "source": "random"},
        source,
        **({"language_lora": small, "vision_lora": small} | options),
    )
    generator = torch.Generator().manual_seed(1)
    for values in bridge.trained_parameters().values():
        for value in values.values():
            value.data += 0.1 * torch.randn(value.shape, generator=generator)
    return bridge.eval()


def plain(bridge: Bridge) -> Bridge:
    """The same models without the LoRA of the vision model."""
    vision = {"kind": registry.kind_of("vision", bridge.vision), "source": bridge.vision.config.source}
    return Bridge.compose(
        {"kind": "t5", "source": "random"}, vision, language_lora=None, vision_lora=None
    ).eval()


@torch.no_grad()
def predicted(bridge: Bridge) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    vision = bridge.vision
    shape = vision.latent_shape(vision.default_size, vision.default_size)
    pooled = None if vision.spec.pooled is None else torch.randn(2, vision.spec.pooled, generator=generator)
    given = Conditioning(
        tokens=torch.randn(2, 5, vision.spec.context, generator=generator),
        mask=torch.ones(2, 5, dtype=torch.bool),
        pooled=pooled,
    )
    return vision.predict(torch.randn(2, *shape, generator=generator), torch.tensor([5, 800]), given)


def assert_close(found: Tensor, expected: Tensor) -> None:
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


# -------------------------------------------------------------------------------- one file: kohya and ComfyUI


@pytest.mark.parametrize("form", ["kohya", "comfyui"])
@pytest.mark.parametrize("vision", ["sd", "sdxl", "pixart", "sd3", "flux"])
def test_a_lora_file_comes_back(form: str, vision: str, tmp_path: Path) -> None:
    bridge = compose(vision)
    if form == "kohya" and vision in ("pixart", "sd3", "flux"):
        with pytest.raises(ModelError, match="has no U-Net"):
            export(bridge, form, tmp_path / "out")
        return
    path = export(bridge, form, tmp_path / "out") / LORA_FILE
    again = plain(bridge)
    assert (predicted(again) - predicted(bridge)).abs().max() > 1e-2
    report = read_lora_file(again, path)
    assert_close(predicted(again), predicted(bridge))
    assert set(report.matched) == set(load_file(path))
    assert report.unmatched == ()


def test_names_are_those_of_the_tools(tmp_path: Path) -> None:
    kohya = load_file(export(compose(), "kohya", tmp_path / "kohya") / LORA_FILE)
    attention = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0"
    convolution = "lora_unet_down_blocks_0_resnets_0_conv1"
    assert kohya[f"{attention}.lora_down.weight"].shape == (4, 32)
    assert kohya[f"{convolution}.lora_down.weight"].shape == (4, 32, 3, 3)
    assert kohya[f"{convolution}.lora_up.weight"].shape == (32, 4, 1, 1)
    assert float(kohya[f"{convolution}.alpha"]) == 4
    assert load_file(export(compose(), "comfyui", tmp_path / "comfyui") / LORA_FILE).keys() == kohya.keys()
    pixart = load_file(export(compose("pixart"), "comfyui", tmp_path / "pixart") / LORA_FILE)
    assert "transformer.transformer_blocks.0.attn2.to_k.lora_A.weight" in pixart
    with pytest.raises(ModelError, match="ComfyUI has no names"):
        export(compose("sana"), "comfyui", tmp_path / "sana")


def test_diffusers_itself_reads_the_kohya_file(tmp_path: Path) -> None:
    bridge = compose()
    path = export(bridge, "kohya", tmp_path / "out") / LORA_FILE
    untouched = plain(bridge)
    before = predicted(untouched)
    parts = {"vae": untouched.vision.autoencoder, "unet": untouched.vision.backbone}
    others = dict.fromkeys(("text_encoder", "tokenizer", "safety_checker", "feature_extractor"))
    pipe = diffusers.StableDiffusionPipeline(
        **parts,
        **others,
        scheduler=diffusers.UniPCMultistepScheduler(steps_offset=1),
        requires_safety_checker=False,
    )
    pipe.load_lora_weights(path)
    assert_close(predicted(untouched), predicted(bridge))
    assert (before - predicted(bridge)).abs().max() > 1e-2


def test_a_lora_file_of_peft_and_another_alpha_are_read(tmp_path: Path) -> None:
    bridge = compose("pixart")
    bridge.save_pretrained(tmp_path)
    again = plain(bridge)
    read_lora_file(again, tmp_path / "vision_lora" / lora.PEFT_WEIGHTS)
    assert_close(predicted(again), predicted(bridge))
    state = load_file(export(bridge, "comfyui", tmp_path / "out") / LORA_FILE)
    halved = {name: value / 2 if name.endswith("alpha") else value for name, value in state.items()}
    halved = {name: value * 2 if "lora_B" in name else value for name, value in halved.items()}
    save_file(halved, tmp_path / "halved.safetensors")
    again = plain(bridge)
    read_lora_file(again, tmp_path / "halved.safetensors")
    assert_close(predicted(again), predicted(bridge))


def test_a_lora_file_is_reported_on_and_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bridge, path = compose(), tmp_path / "changed.safetensors"
    state = load_file(export(bridge, "kohya", tmp_path / "out") / LORA_FILE)
    names = sorted({name.partition(".")[0] for name in state})
    some = {name: value for name, value in state.items() if not name.startswith(names[0] + ".")}
    save_file(some | {"lora_te_text_model.lora_up.weight": torch.zeros(2, 2), "odd": torch.zeros(1)}, path)
    report = read_lora_file(bridge, path)
    assert report.unmatched == ("lora_te_text_model.lora_up.weight", "odd")
    assert len(report.matched) == len(some)
    assert "2 of " in capsys.readouterr().err

    def refused(changed: dict[str, Tensor], match: str, reader: Bridge = bridge) -> None:
        save_file(changed, path)
        with pytest.raises(ModelError, match=match):
            read_lora_file(reader, path)

    refused({"lora_te_a.lora_up.weight": torch.zeros(2, 2)}, "none of its 1 keys, such as lora_te_a")
    refused(state, "none of its", compose("pixart"))
    up = f"{names[0]}.lora_up.weight"
    refused({up: state[up]}, "has no partner")
    refused(state | {up: state[up][:-1].clone()}, "does not fit")
    path.write_bytes(b"garbage")
    with pytest.raises(ModelError, match="is not a safetensors file"):
        read_lora_file(bridge, path)


# ------------------------------------------------------------------------------------------------------- PEFT


def test_peft_reads_the_folders_in_a_fresh_process(tmp_path: Path) -> None:
    bridge = compose(MINI)
    features = bridge.features(["a red circle"]).hidden[:, -1]
    out = export(bridge, "peft", tmp_path / "out")
    for part in ("language_lora", "vision_lora"):
        assert (out / part / "adapter_config.json").is_file()
    assert (out / "connector" / "model.safetensors").is_file()
    expected = merged_weights(bridge.vision.backbone, is_merged=False)
    save_file(expected, tmp_path / "expected.safetensors")
    program = (
        "import sys, diffusers, peft, torch\n"
        "from safetensors.torch import load_file\n"
        "root, out, expected = sys.argv[1:]\n"
        "unet = diffusers.UNet2DConditionModel.from_pretrained(root, subfolder='unet')\n"
        "unet = peft.PeftModel.from_pretrained(unet, out + '/vision_lora').merge_and_unload()\n"
        "found, expected = unet.state_dict(), load_file(expected)\n"
        "assert found.keys() == expected.keys()\n"
        "assert all(torch.allclose(found[name], expected[name], atol=1e-5) for name in found)\n"
        "assert 'lavibridge' not in sys.modules\n"
    )
    root = models_folder() / MINI
    call = [sys.executable, "-c", program, str(root), str(out), str(tmp_path / "expected.safetensors")]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    again = Bridge.from_pretrained(out, device="cpu")
    assert torch.equal(again.features(["a red circle"]).hidden[:, -1], features)


# -------------------------------------------------------------------------------------------------- Diffusers


def test_merged_weights_are_the_same_function() -> None:
    bridge = compose()
    expected = predicted(bridge)
    fresh = plain(bridge)
    fresh.vision.backbone.load_state_dict(merged_weights(bridge.vision.backbone, is_merged=False))
    assert_close(predicted(fresh), expected)
    fresh.vision.backbone.load_state_dict(merged_weights(bridge.merge().vision.backbone, is_merged=True))
    assert_close(predicted(fresh), expected)


def test_the_diffusers_folder_opens_by_itself_and_its_readme_is_true(tmp_path: Path) -> None:
    bridge = compose(MINI)
    out = export(bridge, "diffusers", tmp_path / "pipeline")
    pipe = diffusers.DiffusionPipeline.from_pretrained(out, trust_remote_code=False)
    assert type(pipe).__name__ == "StableDiffusionPipeline"
    assert pipe.text_encoder is not None
    expected = predicted(bridge)
    opened = plain(bridge)
    opened.vision.backbone.load_state_dict(pipe.unet.state_dict())
    assert_close(predicted(opened), expected)
    (code,) = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), flags=re.S)
    names: dict[str, Any] = {"__name__": "readme"}
    exec(compile(code, "README.md", "exec"), names)
    assert names["image"].size == (64, 64)
    pictures = [
        np.asarray(
            names["pipe"](
                **prompt_inputs(names["bridge"], prompt),
                num_inference_steps=3,
                generator=torch.Generator().manual_seed(0),
            ).images[0],
            np.int16,
        )
        for prompt in ("a red circle", "two blue squares")
    ]
    assert np.abs(pictures[0] - pictures[1]).max() > 1


def test_the_diffusers_folder_is_refused_where_it_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="a random toy has no folder"):
        export(compose(), "diffusers", tmp_path / "toy")
    with pytest.raises(ModelError, match="to the denoiser's blocks"):
        export(compose(connector="llmdiff"), "diffusers", tmp_path / "blocks")


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"_class_name": "NoSuchPipeline"}, "'NoSuchPipeline', which Diffusers does not have"),
        ({"_class_name": "LDMTextToImagePipeline"}, "does not accept prompt embeddings"),
        ({"other_encoder": ["transformers", "CLIPTextModel"]}, "lacks other_encoder as safetensors"),
    ],
)
def test_a_pipeline_that_is_not_whole_is_refused(changed: dict[str, Any], match: str, tmp_path: Path) -> None:
    root = tmp_path / "model"
    shutil.copytree(models_folder() / MINI, root)
    index = json.loads((root / "model_index.json").read_text())
    (root / "model_index.json").write_text(json.dumps(index | changed))
    small = {"rank": 4}
    bridge = Bridge.compose(
        {"kind": "t5", "source": "random"}, str(root), vision_lora=small, language_lora=small
    )
    with pytest.raises(ModelError, match=match):
        export(bridge, "diffusers", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"the published numbers are not at {GOLDEN}")
def test_released_weights_become_a_pipeline_of_pixart(tmp_path: Path) -> None:
    """Its pipeline can do without the text encoder, which the folder does not have."""
    models = [str(GOLDEN / "models" / name) for name in ("t5-large", "PixArt-XL-2-512x512")]
    bridge = import_released("lavi-bridge", GOLDEN / "t5_transformer" / "ckpt", *models, device="cpu")
    out = export(bridge, "diffusers", tmp_path / "pipeline")
    pipe = diffusers.DiffusionPipeline.from_pretrained(out)
    assert pipe.text_encoder is None
    connect(pipe, bridge)
    size = bridge.vision.default_size
    latents = torch.randn(bridge.vision.latent_shape(size, size), generator=torch.Generator().manual_seed(0))[
        None
    ]
    settings = {"num_inference_steps": 2, "height": size, "width": size, "output_type": "latent"}
    merged, live = (
        each(**prompt_inputs(bridge, "a cat"), latents=latents, **settings).images
        for each in (pipe, with_scheduler_of(pipe, to_diffusers(bridge)))
    )
    assert_close(merged, live)


def with_scheduler_of(one: Any, other: Any) -> Any:
    other.scheduler = type(one.scheduler).from_config(one.scheduler.config)
    return other


# -------------------------------------------------------------------------------------------- what is refused


def test_what_cannot_be_exported_is_said(tmp_path: Path) -> None:
    bridge = compose(vision_lora=None)
    with pytest.raises(RecipeError, match="did you mean 'kohya'"):
        export(bridge, "koyha", tmp_path / "out")
    with pytest.raises(ModelError, match="no vision LoRA"):
        export(bridge, "kohya", tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    with pytest.raises(RunError, match="exists already"):
        export(bridge, "peft", tmp_path / "full")


def test_the_command_writes_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compose(MINI).save_pretrained(tmp_path / "run")
    call = ["export", str(tmp_path / "run"), "--format", "kohya", "--out", str(tmp_path / "out")]
    app(call, standalone_mode=False)
    assert capsys.readouterr().out.strip() == str(tmp_path / "out")
    assert (tmp_path / "out" / LORA_FILE).is_file()
    with pytest.raises(RecipeError, match="unknown export format 'safetensors'"):
        app([*call[:3], "safetensors", *call[4:]], standalone_mode=False)
