"""Every family's native text side reads prompts as Diffusers' own pipeline does: toys of the real classes."""

import gc
import inspect
import weakref
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from toy_pipelines import FAMILIES, WIDTH, pipeline

from lavibridge import BridgePipeline
from lavibridge.bridge.choices import model_of_choice, native_text_encoders
from lavibridge.core import registry
from lavibridge.core.contracts import TextFeatures
from lavibridge.core.errors import ModelError
from lavibridge.core.text_encoders import TextEncoder
from lavibridge.generation.noise import initial_noise
from lavibridge.generation.sampling import make_sampler
from lavibridge.language.parts.native import NativeText

PROMPTS = ["a red circle", "a small Green ring to the left of a blue square, on a gray floor ", "cat " * 200]
NEGATIVE = "blurred"
Saved = Callable[[str], tuple[Any, Path]]
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:diffusers")


def native(pipe: Any, folder: Path, **options: Any) -> NativeText:
    """The text side that the vision family reads from the saved pipeline."""
    pipe.save_pretrained(folder)
    return opened(folder, **options)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """Each family's toy pipeline and its folder, made when first asked for; nobody changes the folder."""

    @cache
    def make(name: str) -> tuple[Any, Path]:
        pipe, folder = pipeline(name), tmp_path_factory.mktemp(name)
        pipe.save_pretrained(folder)
        return pipe, folder

    return make


def opened(folder: Path, **options: Any) -> NativeText:
    """The text side that the vision family reads from a folder."""
    return native_text_encoders(model_of_choice("vision", str(folder)), **options)


@torch.no_grad()
def theirs(pipe: Any, prompts: list[str], negative: str | None) -> dict[str, Tensor]:
    """What the pipeline makes of prompts: tokens, and masks and pooled vectors where it has them."""
    title = type(pipe).__name__
    if title == "LDMTextToImagePipeline":
        texts = [prompts, [negative] * len(prompts)]
        read = [
            pipe.bert(
                pipe.tokenizer(
                    part, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
                ).input_ids
            )[0]
            for part in texts
        ]
        return {"tokens": read[0], "negative": read[1]}
    if title == "FluxPipeline":
        tokens, pooled, _ = pipe.encode_prompt(prompts, None)
        return {"tokens": tokens, "pooled": pooled}
    away = {"negative_prompt": None if negative is None else [negative] * len(prompts)}
    if title == "StableDiffusionPipeline":
        tokens, far = pipe.encode_prompt(prompts, "cpu", 1, True, **away)
        return {"tokens": tokens, "negative": far}
    if title == "StableDiffusionXLPipeline":
        tokens, far, pooled, far_pooled = pipe.encode_prompt(prompts, device="cpu", **away)
        return {"tokens": tokens, "negative": far, "pooled": pooled, "negative_pooled": far_pooled}
    if title == "StableDiffusion3Pipeline":
        tokens, far, pooled, far_pooled = pipe.encode_prompt(prompts, None, None, device="cpu", **away)
        return {"tokens": tokens, "negative": far, "pooled": pooled, "negative_pooled": far_pooled}
    if title == "SanaPipeline":
        taken = inspect.signature(pipe.__call__).parameters
        away["complex_human_instruction"] = taken["complex_human_instruction"].default
    tokens, mask, far, far_mask = pipe.encode_prompt(prompts, device="cpu", **away)
    return {"tokens": tokens, "mask": mask, "negative": far, "negative_mask": far_mask}


def assert_equal(found: TextFeatures, tokens: Tensor, mask: Tensor | None, pooled: Tensor | None) -> None:
    """Equal where a token is real, and real where the pipeline says so."""
    real = torch.ones(tokens.shape[:2], dtype=torch.bool) if mask is None else mask.bool()
    assert found.mask.sum(1).tolist() == real.sum(1).tolist()
    torch.testing.assert_close(found.hidden[:, 0][found.mask], tokens[real].float(), atol=1e-5, rtol=1e-5)
    assert (found.pooled is None) == (pooled is None)
    if found.pooled is not None and pooled is not None:
        torch.testing.assert_close(found.pooled, pooled.float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("negative", [NEGATIVE, None], ids=["negative", "none"])
@pytest.mark.parametrize("name", FAMILIES)
def test_tokens_and_pooled_vectors_are_the_pipelines(name: str, negative: str | None, saved: Saved) -> None:
    pipe, folder = saved(name)
    if name == "ldm" or (negative is None and name in ("pixart", "pixart-sigma", "sana")):
        negative = negative or ""
    text = opened(folder)
    expected = theirs(pipe, PROMPTS, negative)
    found = text.encode(PROMPTS)
    assert_equal(found, expected["tokens"], expected.get("mask"), expected.get("pooled"))
    assert found.hidden.shape[-1] == text.spec.width == WIDTH
    for prompt, each in text.encode_many(PROMPTS):
        alone = found.split()[PROMPTS.index(prompt)]
        torch.testing.assert_close(each.hidden, alone.hidden, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(each.pooled, alone.pooled, atol=1e-5, rtol=1e-5)
    if "negative" in expected:
        away = text.encode_negative([negative or ""] * len(PROMPTS))
        assert_equal(
            away, expected["negative"], expected.get("negative_mask"), expected.get("negative_pooled")
        )


DRAWN = ("sd", "sdxl", "sd3", "flux", "pixart", "sana")
"""Families whose Diffusers pipeline draws with the sampler that we set; LDM's knows only its own."""
GUIDANCE = {"flux": 1.0}
"""FLUX is told its guidance and draws without a second pass."""


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("negative", [NEGATIVE, None], ids=["negative", "none"])
@pytest.mark.parametrize("name", DRAWN)
def test_pictures_are_the_pipelines(name: str, negative: str | None, saved: Saved) -> None:
    """Prompts of several lengths, guided: within one grey level."""
    pipe, folder = saved(name)
    ours = BridgePipeline.native(folder, device="cpu")
    vision: Any = ours.bridge.vision
    size = {"height": 32, "width": 32}
    shape = vision.latent_shape(**size)
    noise = initial_noise(shape, range(len(PROMPTS)))
    if name != "flux":  # whose own scheduler takes our Euler steps
        pipe.scheduler = make_sampler(vision.scheduler, "euler", vision.flow_shift(shape))
    taken = inspect.signature(pipe.__call__).parameters
    options: dict[str, Any] = {"num_inference_steps": 4, "guidance_scale": GUIDANCE.get(name, 4.0), **size}
    if name == "flux":
        own = {"latents": pipe._pack_latents(noise, *noise.shape), "guidance_scale": 3.5}
    else:
        own = {"latents": noise, "negative_prompt": [negative] * len(PROMPTS) if negative else None}
    if name in ("pixart", "sana"):
        own["negative_prompt"] = negative or ""
    if "use_resolution_binning" in taken:
        own["use_resolution_binning"] = False
    expected = pipe(PROMPTS, output_type="np", **(options | own)).images
    found = ours(
        PROMPTS, negative_prompt=negative, seed=list(range(3)), sampler="euler", output_type="np", **options
    ).images
    assert np.abs(found - expected).max() <= 1 / 255


@pytest.mark.parametrize("name", FAMILIES)
def test_encoders_that_take_turns_read_the_same(name: str, saved: Saved) -> None:
    _, folder = saved(name)
    whole, turns = opened(folder), opened(folder, unload=True)
    assert not list(turns.parameters())
    for one, other in zip(
        (whole.encode(PROMPTS), whole.encode_negative([""])),
        (turns.encode(PROMPTS), turns.encode_negative([""])),
        strict=True,
    ):
        assert torch.equal(one.hidden, other.hidden)
        assert torch.equal(one.mask, other.mask)
        assert (one.pooled is None) or torch.equal(one.pooled, other.pooled)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_token_knows_its_characters(name: str, saved: Saved) -> None:
    text = opened(saved(name)[1])
    prompt = "a red circle"
    spans = text.spans(prompt)
    assert len(spans) == text.encode([prompt]).hidden.shape[2]
    every = "".join(prompt[start:end] for start, end in spans).replace(" ", "")
    assert every == "aredcircle" * len(text.side.sequence), "each group covers each character once"


def test_an_encoder_is_gone_before_the_next_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = native(pipeline("sd3"), tmp_path, unload=True)
    load, loaded = NativeText._load, list[weakref.ref[Any]]()

    def watched(self: NativeText, encoder: TextEncoder) -> Any:
        gc.collect()
        assert not any(each() is not None for each in loaded), "two encoders at a time"
        model = load(self, encoder)
        loaded.append(weakref.ref(model))
        return model

    monkeypatch.setattr(NativeText, "_load", watched)
    text.encode(["a red circle"])
    assert len(loaded) == 3


def test_a_native_pipeline_has_nothing_to_save(tmp_path: Path) -> None:
    pipeline("sd").save_pretrained(tmp_path / "model")
    ours = BridgePipeline.native(tmp_path / "model", device="cpu")
    with pytest.raises(ModelError, match="has nothing to save"):
        ours.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_missing_weights_are_no_random_ones(tmp_path: Path) -> None:
    pipeline("sd").save_pretrained(tmp_path)
    path = tmp_path / "text_encoder" / "model.safetensors"
    state = load_file(path)
    name = next(each for each in state if each.endswith("fc1.weight"))
    save_file({each: value for each, value in state.items() if each != name}, path, {"format": "pt"})
    with pytest.raises(ModelError, match=r"text_encoder.*lacks 1 weights"):
        native_text_encoders(model_of_choice("vision", str(tmp_path)))


def test_sd3_without_its_t5_sees_zeros(tmp_path: Path) -> None:
    pipe = pipeline("sd3", text_encoder_3=None, tokenizer_3=None)
    text = native(pipe, tmp_path)
    expected = theirs(pipe, PROMPTS, None)
    assert_equal(text.encode(PROMPTS), expected["tokens"], None, expected["pooled"])
    assert not text.encode(["a"]).hidden[:, 0, -256:].any()


def test_a_length_replaces_the_pipelines_default(tmp_path: Path) -> None:
    pipe = pipeline("flux")
    text = native(pipe, tmp_path, max_sequence_length=32)
    tokens, pooled, _ = pipe.encode_prompt(PROMPTS, None, max_sequence_length=32)
    assert_equal(text.encode(PROMPTS), tokens, None, pooled)
    assert text.count_tokens(["a red circle"])[1] == [0]
    assert text.count_tokens(["a red circle " * 40])[1][0] > 0


def test_sdxl_without_forced_zeros_reads_the_empty_prompt(tmp_path: Path) -> None:
    pipe = pipeline("sdxl")
    pipe.register_to_config(force_zeros_for_empty_prompt=False)
    text = native(pipe, tmp_path)
    expected = theirs(pipe, PROMPTS, None)
    assert expected["negative"].any()
    assert_equal(text.encode_negative([""] * 3), expected["negative"], None, expected["negative_pooled"])


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    toy: Any = registry.load_kind("vision", "sd")
    with pytest.raises(ModelError, match="random toy"):
        native_text_encoders(toy(toy.Config(source="random")))
    pipe = pipeline("sdxl")
    pipe.save_pretrained(tmp_path)
    (tmp_path / "text_encoder_2" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="text_encoder_2"):
        native_text_encoders(model_of_choice("vision", str(tmp_path)))
    index = (tmp_path / "model_index.json").read_text()
    (tmp_path / "model_index.json").write_text(index.replace("CLIPTextModelWithProjection", "NoSuchModel"))
    with pytest.raises(ModelError, match="NoSuchModel"):
        native_text_encoders(model_of_choice("vision", str(tmp_path)))
