"""The nodes, called as ComfyUI calls them, give what `lavi generate` gives: conditioning and predictions."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from comfyui_contract import COMFY_SD, BaseModel, ModelPatcher, calc_cond_batch
from torch import Tensor

from lavibridge import Bridge, export
from lavibridge.bridge.bridge_file import DenoiserInterface, StoredModels, pack_saved_bridge
from lavibridge.core import registry
from lavibridge.core.contracts import TextFeatures
from lavibridge.core.errors import LaviError, ModelError, RecipeError, RunError
from lavibridge.core.paths import models_folder
from lavibridge.generation.emphasis import read_emphasis
from lavibridge.generation.prompt_encoding import EncodedPrompt, encode_prompts
from lavibridge.interop.packing import unpack_features

POSITIVE, NEGATIVE = "a (red:1.3) circle, above", "blue"
"""Of 20 and 5 tokens for the toys, so that ComfyUI repeats the second four times."""
LORA = {"rank": 2, "dropout": 0.0}
PIVOT = {"kind": "pivot", "slots": 3, "width": 8, "latents": 4, "language_heads": 2, "vision_heads": 2}
CONNECTORS: dict[str, Any] = {
    "lavi": "lavi",
    "resampler": {"kind": "resampler", "latents": 4, "heads": 2},
    "ella": {"kind": "ella", "latents": 4, "blocks": 1, "heads": 2, "time_channels": 8},
    "llmdiff": "llmdiff",
    "semantic_routing": "semantic_routing",
    "pivot": PIVOT,
}
PAIRS = [
    ("lavi", "sd"),
    ("resampler", "sdxl"),
    ("ella", "sdxl"),
    ("ella", "flux"),
    ("llmdiff", "sd"),
    ("semantic_routing", "sd"),
    ("pivot", "sd3"),
    pytest.param(("lavi", "mini-sd"), marks=pytest.mark.slow),
]


def vision_choice(name: str) -> dict[str, str]:
    """A shipped miniature, or the toy of a family."""
    return {"source": name} if name.startswith("mini-") else {"kind": name, "source": "random"}


def compose(connector: str, vision: str) -> Bridge:
    """A bridge as if trained."""
    language = {"kind": "llama" if connector == "llmdiff" else "t5", "source": "random"}
    bridge = Bridge.compose(language, vision_choice(vision), CONNECTORS[connector], LORA, LORA)
    generator = torch.Generator().manual_seed(1)
    for values in bridge.trained_parameters().values():
        for value in values.values():
            value.data += 0.1 * torch.randn(value.shape, generator=generator)
    return bridge.eval()


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bridge, Path]:
    """A bridge and its file, whose vision model is nowhere."""
    bridge = compose(*request.param)
    folder = tmp_path_factory.mktemp("bridge")
    bridge.save_pretrained(folder / "saved")
    description = json.loads((folder / "saved" / "bridge.json").read_text())
    description["vision"]["source"] = str(folder / "no" / "such" / "model")
    (folder / "saved" / "bridge.json").write_text(json.dumps(description))
    models = StoredModels(language="random", vision="?", denoiser=DenoiserInterface.of(bridge.vision))
    pack_saved_bridge(folder / "saved", folder / "bridge.safetensors", models)
    return bridge, folder / "bridge.safetensors"


def call(package: ModuleType, name: str, **inputs: Any) -> Any:
    """Call a node by name, as ComfyUI does (execution.py, `_map_node_over_list`): without autograd."""
    node = package.NODE_CLASS_MAPPINGS[name]
    with torch.inference_mode():
        result = getattr(node(), node.FUNCTION)(**inputs)
    return result[0] if isinstance(result, tuple) and result else result


def load(package: ModuleType, file: Path) -> Any:
    chosen = call(package, "LaviLoadLanguageModel", source="", dtype="as saved", device="cpu")
    return call(package, "LaviLoadBridge", bridge=str(file), language_model=chosen)


def expected_prompts(bridge: Bridge) -> list[EncodedPrompt]:
    """What `BridgePipeline` encodes."""
    prompts = [read_emphasis(POSITIVE, True), read_emphasis(NEGATIVE, True, is_negative=True)]
    encoded = encode_prompts(bridge, prompts, 2)
    return [encoded[prompt] for prompt in prompts]


def assert_close(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max()))


# ------------------------------------------------------------------------------------------ what they compute


@torch.no_grad()
def test_the_conditioning_is_that_of_lavi_generate(package: ModuleType, pair: tuple[Bridge, Path]) -> None:
    bridge, file = pair
    loaded = load(package, file)
    for prompt, is_negative, expected in zip(
        (POSITIVE, NEGATIVE), (False, True), expected_prompts(bridge), strict=True
    ):
        ((tensor, extra),) = call(
            package, "LaviEncodePrompt", bridge=loaded, text=prompt, negative=is_negative
        )
        assert tensor.dtype == torch.float32
        assert tensor.device.type == "cpu"
        assert len(tensor) == 1
        if bridge.runs_at_each_step:
            features = unpack_features(tensor, bridge.connector.reading, bridge.language.spec)
            assert_close(features.hidden, expected.features.hidden)
            assert torch.equal(features.mask, expected.features.mask)
            continue
        made = expected.condition(bridge.connector, torch.zeros(1))
        assert_close(tensor, made.tokens)
        assert ("pooled_output" in extra) == (bridge.vision.spec.pooled is not None)
        if made.pooled is not None:
            assert_close(extra["pooled_output"], made.pooled)
        if bridge.vision.honours_mask:
            assert torch.equal(extra["attention_mask"], torch.ones(tensor.shape[:2], dtype=torch.long))


@torch.no_grad()
def test_the_denoiser_predicts_what_it_predicts_in_the_bridge(
    package: ModuleType, pair: tuple[Bridge, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge, file = pair
    comfy = ModuleType("comfy")
    monkeypatch.setattr(comfy, "sd", COMFY_SD, raising=False)
    monkeypatch.setitem(sys.modules, "comfy", comfy)
    monkeypatch.setitem(sys.modules, "comfy.sd", COMFY_SD)
    loaded = load(package, file)
    conds = [
        call(package, "LaviEncodePrompt", bridge=loaded, text=prompt, negative=is_negative)
        for prompt, is_negative in ((POSITIVE, False), (NEGATIVE, True))
    ]
    lengths = [cond[0][0].shape[1] for cond in conds]
    assert lengths[0] == lengths[1] or lengths == [20, 5]
    source = bridge.vision.config.source
    choice = vision_choice(registry.kind_of("vision", bridge.vision) if source == "random" else source)
    plain = Bridge.compose({"kind": "t5", "source": "random"}, choice, "linear", None, None).eval()
    model = ModelPatcher(BaseModel(plain.vision))
    patched = call(package, "LaviApplyBridge", model=model, bridge=loaded, lora_strength=1.0)
    assert patched is not model
    assert (len(model.patches), len(patched.patches) > 0) == (0, True)
    assert "model_function_wrapper" not in model.model_options
    vision, encoded = bridge.vision, expected_prompts(bridge)
    shape = vision.latent_shape(vision.default_size, vision.default_size)
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(2))
    for step in (990, 300):
        sigma = (vision.sigmas / vision.alphas if vision.prediction_type != "flow" else vision.sigmas)[step]
        found = calc_cond_batch(patched, conds, x, sigma.expand(2))
        times = vision.times[step].expand(2)
        noisy = x if vision.prediction_type == "flow" else x / (sigma**2 + 1).sqrt()
        for denoised, prompt in zip(found, encoded, strict=True):
            features = TextFeatures.pad([prompt.features] * 2)
            expected = vision.predict(noisy, times, bridge.connector(features, times))
            assert_close((x - denoised) / sigma, expected)


def test_the_language_model_may_be_another_copy(
    package: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mini = Bridge.compose("mini-t5-small", {"kind": "sd", "source": "random"}, "linear", None, None).eval()
    file = export(mini, "bridge", tmp_path / "bridge.safetensors")
    folder = models_folder() / "mini-t5-small"
    chosen = call(package, "LaviLoadLanguageModel", source=str(folder), dtype="bfloat16", device="cpu")
    loaded = call(package, "LaviLoadBridge", bridge=str(file), language_model=chosen)
    assert loaded.language.config.source == str(folder)
    assert loaded.language.config.dtype == "bfloat16"
    assert "images differ" not in capsys.readouterr().err
    other = call(package, "LaviLoadLanguageModel", source="mini-llama", dtype="as saved", device="cpu")
    with pytest.raises(ModelError, match=r"does not fit.*choose the one that the bridge was trained with"):
        call(package, "LaviLoadBridge", bridge=str(file), language_model=other)


def test_a_folder_works_like_the_file(package: ModuleType, tmp_path: Path) -> None:
    bridge = compose("resampler", "sd")
    bridge.save_pretrained(tmp_path / "folder")
    file = export(bridge, "bridge", tmp_path / "file.safetensors")
    tensors = [
        call(package, "LaviEncodePrompt", bridge=load(package, place), text=POSITIVE, negative=False)[0][0]
        for place in (tmp_path / "folder", file)
    ]
    assert torch.equal(*tensors)


# ------------------------------------------------------------------------------------- other nodes beside


@pytest.fixture(scope="module")
def ella(package: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A loaded bridge that works at each step, without LoRA of the denoiser."""
    toys = ({"kind": "t5", "source": "random"}, {"kind": "sd", "source": "random"})
    bridge = Bridge.compose(*toys, CONNECTORS["ella"], None, None).eval()
    file = export(bridge, "bridge", tmp_path_factory.mktemp("ella") / "ella.safetensors")
    return load(package, file)


def model_of_toys() -> ModelPatcher:
    toys = ({"kind": "t5", "source": "random"}, {"kind": "sd", "source": "random"})
    return ModelPatcher(BaseModel(Bridge.compose(*toys, "linear", None, None).eval().vision))


def test_another_node_s_wrapper_is_called_after_the_connector(package: ModuleType, ella: Any) -> None:
    seen: list[torch.Size] = []

    def wrapper(apply_model: Any, arguments: dict[str, Any]) -> Tensor:
        seen.append(arguments["c"]["c_crossattn"].shape)
        return apply_model(arguments["input"], arguments["timestep"], **arguments["c"])

    model = model_of_toys()
    model.set_model_unet_function_wrapper(wrapper)
    patched = call(package, "LaviApplyBridge", model=model, bridge=ella, lora_strength=1.0)
    cond = call(package, "LaviEncodePrompt", bridge=ella, text="a red circle", negative=False)
    calc_cond_batch(patched, [cond], torch.zeros(1, 4, 8, 8), torch.tensor([3.0]))
    assert seen == [torch.Size([1, 4, model.model.vision.spec.context])]


def test_another_node_s_attention_is_kept(package: ModuleType) -> None:
    places = sys.modules[f"{package.__name__}.block_attention"]
    calls: list[str] = []

    def earlier(q: Tensor, k: Tensor, v: Tensor, extra: Any) -> Tensor:
        calls.append("earlier")
        return q

    options = {"patches_replace": {"attn2": {("input", 1): earlier, ("input", 9, 0): earlier}}, "sigmas": 1}
    made = places.with_block_attention(options, {"a": lambda x, answer: answer + x}, {"a": ("input", 1, 0)})
    assert options["patches_replace"]["attn2"].keys() == {("input", 1), ("input", 9, 0)}
    extra = {"block": ("input", 1), "block_index": 0, "n_heads": 1}
    (keep,) = made["patches"]["attn2_patch"]
    keep(torch.ones(1, 2, 4), torch.ones(1, 1, 4), torch.ones(1, 1, 4), extra)
    answer = made["patches_replace"]["attn2"][("input", 1, 0)](torch.ones(1, 2, 4), None, None, extra)
    assert calls == ["earlier"]
    assert torch.equal(answer, torch.full((1, 2, 4), 2.0))


def test_the_connector_keeps_its_number_format(ella: Any, package: ModuleType) -> None:
    patched = call(package, "LaviApplyBridge", model=model_of_toys(), bridge=ella, lora_strength=1.0)
    patched.model_patches_to(torch.float16)
    assert {weight.dtype for weight in ella.connector.parameters()} == {torch.float32}


def test_copies_of_a_shorter_prompt_are_masked(package: ModuleType) -> None:
    apply = sys.modules[f"{package.__name__}.apply"]
    row = torch.randn(1, 3, 6, generator=torch.Generator().manual_seed(0))
    row[..., :2] = 1
    long = torch.randn(1, 6, 6, generator=torch.Generator().manual_seed(1))
    long[..., :2] = 1
    masked = apply.mask_repeats(torch.cat([row.repeat(1, 2, 1), long]))
    assert masked[..., 0].tolist() == [[1, 1, 1, 0, 0, 0], [1] * 6]
    assert torch.equal(masked[..., 2:], torch.cat([row.repeat(1, 2, 1), long])[..., 2:])
    again = apply.repeat_real_tokens(masked, masked[..., 0] > 0.5)
    assert torch.equal(again, torch.cat([row.repeat(1, 2, 1), long]))


# ----------------------------------------------------------------------------------------- what is refused


def test_a_foreign_or_emptied_conditioning_is_named(package: ModuleType, ella: Any) -> None:
    patched = call(package, "LaviApplyBridge", model=model_of_toys(), bridge=ella, lora_strength=1.0)
    x, sigma = torch.zeros(1, 4, 8, 8), torch.tensor([3.0])
    with pytest.raises(ModelError, match="make every prompt, the negative one too, with 'Encode prompt'"):
        calc_cond_batch(patched, [[[torch.zeros(1, 77, 768), {}]]], x, sigma)
    cond = call(package, "LaviEncodePrompt", bridge=ella, text="a", negative=False)
    with pytest.raises(ModelError, match="ConditioningZeroOut"):
        calc_cond_batch(patched, [[[torch.zeros_like(cond[0][0]), {}]]], x, sigma)


def test_what_cannot_be_loaded_is_named(package: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no file or folder"):
        call(package, "LaviLoadBridge", bridge="nowhere.safetensors")
    with pytest.raises(RunError, match="lavi export RUN --format bridge"):
        call(package, "LaviLoadBridge", bridge="")
    with pytest.raises(LaviError, match="nowhere"):
        call(package, "LaviLoadLanguageModel", source="./nowhere", dtype="as saved", device="cpu")


def test_blocks_of_other_denoisers_are_refused(package: ModuleType) -> None:
    places = sys.modules[f"{package.__name__}.block_attention"]
    with pytest.raises(ModelError, match=r"for U-Nets only.*transformer_blocks\.0\.attn2"):
        places.block_places(("transformer_blocks.0.attn2",))


def test_word_weights_that_have_no_effect_are_refused(package: ModuleType, tmp_path: Path) -> None:
    query = {"kind": "query", "queries": 2}
    toys = ({"kind": "llama", "source": "random"}, {"kind": "sd", "source": "random"})
    file = export(Bridge.compose(*toys, query, None, None).eval(), "bridge", tmp_path / "b.safetensors")
    loaded = load(package, file)
    call(package, "LaviEncodePrompt", bridge=loaded, text="a red circle", negative=False)
    with pytest.raises(RecipeError, match="reads learned queries"):
        call(package, "LaviEncodePrompt", bridge=loaded, text=POSITIVE, negative=False)
