"""The bridge as a whole: what trains, what is drawn, what is saved, and what is refused."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lavibridge import Bridge, BridgePipeline
from lavibridge.bridge import TRAINED_PARTS
from lavibridge.bridge.saved_bridge import saved_checkpoints
from lavibridge.core.contracts import Batch
from lavibridge.core.errors import ModelError, RecipeError, RunError
from lavibridge.core.files import file_sha256
from lavibridge.recipes.sections import component_of_section, read_kind_section
from lavibridge.recipes.training_section import WEIGHTING
from lavibridge.report.run_record import read_run

PAIRS = [("t5", "sd"), ("llama", "sd"), ("bert", "pixart"), ("clip", "pixart")]
PROMPTS = ["a red cat", "a much longer prompt: a boat beside a house, and a tree behind it"]


def compose(language: str = "t5", vision: str = "sd", **options: object) -> Bridge:
    small = {"rank": 4}
    return Bridge.compose(
        {"kind": language, "source": "random"},
        {"kind": vision, "source": "random"},
        **({"language_lora": small, "vision_lora": small} | options),  # type: ignore[arg-type]
    )


def shaken(bridge: Bridge) -> Bridge:
    """A bridge as if trained: no LoRA is at its start, and prompts make a difference that can be seen."""
    generator = torch.Generator().manual_seed(1)
    for values in bridge.trained_parameters().values():
        for value in values.values():
            value.data = 0.3 * torch.randn(value.shape, generator=generator)
    return bridge


def batch() -> Batch:
    generator = torch.Generator().manual_seed(2)
    return Batch(
        prompts=tuple(PROMPTS), names=("a", "b"), latents=torch.randn(2, 4, 8, 8, generator=generator)
    )


def noise() -> torch.Tensor:
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))


def pixels(bridge: Bridge, prompts: list[str], **options: object) -> np.ndarray:
    settings = {"num_inference_steps": 4, "guidance_scale": 3.0, "seed": 0} | options
    return np.stack(
        [np.asarray(image, np.int16) for image in BridgePipeline(bridge)(prompts, **settings).images]  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(("language", "vision"), PAIRS)
def test_gradient_reaches_exactly_the_trained_parts(language: str, vision: str) -> None:
    bridge = shaken(compose(language, vision)).train()
    losses = bridge(batch(), torch.tensor([20, 800]), noise())
    assert losses.shape == (2,)
    losses.mean().backward()
    parts = bridge.trained_parameters()
    assert tuple(parts) == TRAINED_PARTS
    trained = {id(value) for part in parts.values() for value in part.values()}
    reached = {
        id(value) for value in bridge.parameters() if value.grad is not None and bool(value.grad.any())
    }
    assert reached == trained
    assert {id(value) for value in bridge.parameters() if value.requires_grad} == trained
    assert set(bridge.vision.published_lr) == set(TRAINED_PARTS)


def test_a_step_lowers_the_loss() -> None:
    bridge = compose().eval()
    optimizer = torch.optim.AdamW(
        [value for part in bridge.trained_parameters().values() for value in part.values()], lr=1e-3
    )
    losses = []
    for _ in range(8):
        loss = bridge(batch(), torch.tensor([20, 800]), noise()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.01


def test_losses_are_per_sample_and_weighted() -> None:
    bridge = compose().eval()
    t = torch.tensor([20, 800])
    both = bridge(batch(), t, noise())
    whole = batch()
    assert whole.latents is not None
    second = Batch(prompts=whole.prompts[1:], names=("b",), latents=whole.latents[1:])
    torch.testing.assert_close(bridge(second, t[1:], noise()[1:]), both[1:], atol=1e-5, rtol=1e-4)
    snr = (bridge.vision.alphas[t] / bridge.vision.sigmas[t]).square()
    expected = both * snr.clamp(max=5) / snr
    torch.testing.assert_close(
        bridge(batch(), t, noise(), component_of_section(WEIGHTING, read_kind_section(WEIGHTING, "min_snr"))),
        expected,
    )


def test_without_lora_only_the_connector_trains() -> None:
    bridge = compose(language_lora=None, vision_lora=None)
    assert not bridge.features(PROMPTS).hidden.requires_grad
    parts = bridge.trained_parameters()
    assert [len(parts[part]) > 0 for part in TRAINED_PARTS] == [False, True, False]


INNER = {"kind": "linear", "read": {"layer": 1}}


@pytest.mark.parametrize("language", ["bert", "clip", "gemma", "llama", "qwen", "siglip", "t5", "t5gemma"])
def test_lora_goes_where_the_connector_reads(language: str) -> None:
    """Above the layer that is read it would learn nothing; targets that are named are taken as they are."""
    bridge = shaken(compose(language, connector=INNER)).train()
    bridge(batch(), torch.tensor([20, 800]), noise()).mean().backward()
    weights = bridge.trained_parameters()["language_lora"]
    assert all(value.grad is not None and bool(value.grad.any()) for value in weights.values())
    everywhere = compose(language).trained_parameters()["language_lora"]
    assert len(everywhere) == 2 * len(weights)
    assert set(weights) < set(everywhere)
    named = {"rank": 4, "targets": list(bridge.language.lora_targets)}
    as_asked = compose(language, connector=INNER, language_lora=named)
    assert set(as_asked.trained_parameters()["language_lora"]) == set(everywhere)


def test_inner_lora_is_saved_and_read(tmp_path: Path) -> None:
    bridge = shaken(compose("llama", connector=INNER))
    bridge.save_pretrained(tmp_path / "bridge")
    again = Bridge.from_pretrained(tmp_path / "bridge")
    assert np.array_equal(pixels(bridge, PROMPTS), pixels(again, PROMPTS))


def test_lora_below_which_nothing_lies() -> None:
    with pytest.raises(ModelError, match="read a higher layer, or leave its LoRA out"):
        compose("llama", connector={"kind": "linear", "read": {"layer": 0}})


ROUNDING = {"float32": 1, "bfloat16": 5}
"""Grey levels by which a batch may change a toy's picture."""
ROUNDED = [(*pair, "float32") for pair in PAIRS] + [(*pair, "bfloat16") for pair in PAIRS[:3]]


@pytest.mark.parametrize(("language", "vision", "dtype"), ROUNDED)
def test_batches_change_pictures_by_rounding_only(language: str, vision: str, dtype: str) -> None:
    sides = ({"kind": kind, "source": "random", "dtype": dtype} for kind in (language, vision))
    bridge = shaken(Bridge.compose(*sides, language_lora={"rank": 4}, vision_lora={"rank": 4}))
    prompts, most = [*PROMPTS, "two green stars"], ROUNDING[dtype]
    together = pixels(bridge, prompts, seed=[1, 2, 1])
    assert np.abs(together - pixels(bridge, prompts, seed=[1, 2, 1], batch_size=1)).max() <= most
    assert np.abs(together[2] - pixels(bridge, prompts[2:], seed=1)[0]).max() <= most
    assert np.abs(together[0] - together[2]).max() > most


def test_seeds_prompts_and_guidance_change_pictures() -> None:
    bridge = shaken(compose())
    first = pixels(bridge, PROMPTS[:1])
    assert np.array_equal(first, pixels(bridge, PROMPTS[:1], seed=0))
    for options in ({"seed": 1}, {"guidance_scale": 9.0}, {"negative_prompt": "blue"}, {"sampler": "ddim"}):
        assert np.abs(first - pixels(bridge, PROMPTS[:1], **options)).max() > 1, options


@pytest.mark.parametrize(("language", "vision"), PAIRS)
def test_saved_bridge_is_the_same(language: str, vision: str, tmp_path: Path) -> None:
    connector = {"kind": "lavi", "width": 20, "read": {"layer": 1}}
    bridge = shaken(compose(language, vision, connector=connector)).eval()
    bridge.save_pretrained(tmp_path)
    loaded = Bridge.from_pretrained(tmp_path, device="cpu")
    assert loaded.origin == {"folder": tmp_path.as_posix(), "sha256": file_sha256(tmp_path / "bridge.json")}
    t = torch.tensor([20, 800])
    assert torch.equal(loaded(batch(), t, noise()), bridge(batch(), t, noise()))
    assert np.array_equal(pixels(loaded, PROMPTS), pixels(bridge, PROMPTS))
    loaded.save_pretrained(tmp_path / "again")
    first, second = (
        json.loads((folder / "bridge.json").read_text()) for folder in (tmp_path, tmp_path / "again")
    )
    assert first == second


def test_merged_bridge_draws_the_same_and_does_not_train() -> None:
    bridge = shaken(compose()).eval()
    before = pixels(bridge, PROMPTS)
    bridge.merge()
    assert np.abs(pixels(bridge, PROMPTS) - before).max() <= 1
    with pytest.raises(ModelError, match="unmerge"):
        bridge(batch(), torch.tensor([20, 800]), noise())
    bridge.unmerge()
    assert np.abs(pixels(bridge, PROMPTS) - before).max() <= 1


def test_damaged_and_missing_folders(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no folder"):
        Bridge.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(RunError, match="neither"):
        Bridge.from_pretrained(tmp_path)
    compose().save_pretrained(tmp_path)
    weights = tmp_path / "connector" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(RunError, match="SHA-256"):
        Bridge.from_pretrained(tmp_path)
    weights.unlink()
    with pytest.raises(RunError, match="missing"):
        Bridge.from_pretrained(tmp_path)


def test_run_folder_gives_its_newest_complete_checkpoint(tmp_path: Path) -> None:
    from lavibridge.bridge.saved_bridge import find_saved_bridge

    for step, parts in (("2", ("bridge",)), ("10", ("bridge", "ema")), ("30", ("bridge",))):
        for part in parts:
            folder = tmp_path / "checkpoints" / f"step-{step}" / part
            folder.mkdir(parents=True)
            (folder / "bridge.json").write_text("{}")
        if step != "30":
            (tmp_path / "checkpoints" / f"step-{step}" / "manifest.json").write_text("{}")
    assert find_saved_bridge(tmp_path) == tmp_path / "checkpoints" / "step-10" / "ema"
    assert (
        find_saved_bridge(tmp_path / "checkpoints" / "step-2")
        == tmp_path / "checkpoints" / "step-2" / "bridge"
    )


def test_wrong_choices_are_named() -> None:
    toy = {"kind": "sd", "source": "random"}
    with pytest.raises(RecipeError, match="did you mean 'lavi'"):
        Bridge.compose({"kind": "t5", "source": "random"}, toy, "lavy")
    with pytest.raises(RecipeError, match=r"language: unknown kind 'gpt'"):
        Bridge.compose({"kind": "gpt", "source": "random"}, toy)
    with pytest.raises(RecipeError, match=r"language\.max_token: unknown key; did you mean 'max_tokens'"):
        Bridge.compose({"kind": "t5", "source": "random", "max_token": 3}, toy)
    with pytest.raises(RecipeError, match=r"language\.kind"):
        Bridge.compose("random", toy)
    with pytest.raises(RecipeError, match=r"vision\.source"):
        Bridge.compose({"kind": "t5", "source": "random"}, {"kind": "sd"})
    with pytest.raises(RecipeError, match=r"vision_lora\.rank"):
        compose(vision_lora={"rank": 0})
    with pytest.raises(ModelError, match="32 wide"):
        compose(connector="identity")
    with pytest.raises(ModelError, match="rank 64 is larger"):
        compose(vision_lora={"rank": 64})


def test_importing_the_package_imports_no_torch() -> None:
    script = (
        "import sys, lavibridge; from lavibridge.core import config, errors, files, log, registry, sources; "
    )
    script += "assert 'torch' not in sys.modules and registry.kinds('language'), 'torch'; "
    script += "assert lavibridge.__version__"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_copied_checkpoints_are_none_of_the_run_s(tmp_path: Path) -> None:
    step = tmp_path / "checkpoints" / "step-7"
    compose().save_pretrained(step / "bridge")
    (step / "manifest.json").write_text("{}")
    for copy in ("step-9.bak", "step-9 (copy)", "step-", "step-\u00b2", "step-old"):
        shutil.copytree(step, step.with_name(copy))
    (tmp_path / "recipe.yaml").write_text("training: {steps: 7}\n")
    assert saved_checkpoints(tmp_path) == [step]
    assert Bridge.from_pretrained(tmp_path, "cpu").origin["folder"] == (step / "bridge").as_posix()
    assert read_run(tmp_path).part_sizes.keys() == {"connector", "language_lora", "vision_lora"}
    assert Bridge.from_pretrained(step.with_name("step-9.bak"), "cpu")
