"""Every family's native text side reads prompts as Diffusers' own pipeline does: toys of the real classes."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import transformers
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel
from torch import Tensor

from lavibridge import BridgePipeline
from lavibridge.bridge.choices import component, native_text
from lavibridge.core import registry
from lavibridge.core.contracts import TextFeatures
from lavibridge.core.errors import ModelError
from lavibridge.core.files import models_folder
from lavibridge.generation.noise import initial_noise
from lavibridge.generation.sample import make_scheduler
from lavibridge.language.parts.native import NativeText

PROMPTS = ["a red circle", "a small Green ring to the left of a blue square, on a gray floor ", "cat " * 200]
NEGATIVE = "blurred"
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:diffusers")
WIDTH, POOLED = 48, 24
"""Of the toys' denoisers."""


def clip(width: int, projection: int | None = None) -> Any:
    tokenizer = transformers.CLIPTokenizer.from_pretrained(models_folder() / "mini-clip")
    config = transformers.CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=projection or width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    made = transformers.CLIPTextModel if projection is None else transformers.CLIPTextModelWithProjection
    return made(config), tokenizer


def t5() -> Any:
    tokenizer = transformers.T5Tokenizer.from_pretrained(models_folder() / "mini-t5-small")
    config = transformers.T5Config(
        vocab_size=len(tokenizer), d_model=WIDTH, d_kv=16, d_ff=32, num_layers=2, num_heads=2
    )
    return transformers.T5EncoderModel(config), tokenizer


def gemma() -> Any:
    tokenizer = transformers.AutoTokenizer.from_pretrained(models_folder() / "mini-llama")
    config = transformers.Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=1024,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return transformers.Gemma2Model(config), tokenizer


def bert() -> Any:
    tokenizer = transformers.BertTokenizer.from_pretrained(models_folder() / "mini-ldm" / "tokenizer")
    config = LDMBertConfig(
        vocab_size=len(tokenizer),
        d_model=WIDTH,
        encoder_layers=2,
        encoder_ffn_dim=32,
        encoder_attention_heads=2,
        head_dim=16,
        max_position_embeddings=77,
    )
    return LDMBertModel(config).eval(), tokenizer


def numbered(*encoders: Any) -> dict[str, Any]:
    """Encoders and tokenizers as a pipeline names them: text_encoder, text_encoder_2, ..."""
    named = {}
    for index, (model, tokenizer) in enumerate(encoders, start=1):
        end = "" if index == 1 else f"_{index}"
        named |= {f"text_encoder{end}": model.eval(), f"tokenizer{end}": tokenizer}
    return named


FAMILIES: Mapping[str, tuple[str, str, Callable[[], dict[str, Any]]]] = {
    "sd": ("sd", "StableDiffusionPipeline", lambda: numbered(clip(WIDTH))),
    "sdxl": ("sdxl", "StableDiffusionXLPipeline", lambda: numbered(clip(16), clip(32, POOLED))),
    "sd3": ("sd3", "StableDiffusion3Pipeline", lambda: numbered(clip(16, 8), clip(16, 16), t5())),
    "flux": ("flux", "FluxPipeline", lambda: numbered(clip(POOLED), t5())),
    "pixart": ("pixart", "PixArtAlphaPipeline", lambda: numbered(t5())),
    "pixart-sigma": ("pixart", "PixArtSigmaPipeline", lambda: numbered(t5())),
    "sana": ("sana", "SanaPipeline", lambda: numbered(gemma())),
    "ldm": ("ldm", "LDMTextToImagePipeline", lambda: dict(zip(("bert", "tokenizer"), bert(), strict=True))),
}
"""Name -> the family, its pipeline in Diffusers, and the pipeline's text encoders."""
OTHERS: Mapping[str, Any] = {"safety_checker": None, "feature_extractor": None, "image_encoder": None}


def pipeline(name: str, **changes: Any) -> Any:
    """A toy pipeline of the real class, with the family's toy denoiser."""
    kind, title, encoders = FAMILIES[name]
    family: Any = registry.load("vision", kind)
    model = family(family.Config(source="random"))
    made: Any = getattr(diffusers, title)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts = {
            family.denoiser_folder: model.backbone,
            family.autoencoder_folder: model.autoencoder,
            "scheduler": model.scheduler,
            **encoders(),
            **changes,
        }
    taken = made.__init__.__code__.co_varnames
    others = {each: value for each, value in OTHERS.items() if each in taken}
    if "requires_safety_checker" in taken:
        others["requires_safety_checker"] = False
    pipe = made(**parts, **others)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def native(pipe: Any, folder: Path, **options: Any) -> NativeText:
    """The text side that the vision family reads from the saved pipeline."""
    pipe.save_pretrained(folder)
    return native_text(component("vision", str(folder)), **options)


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
def test_tokens_and_pooled_vectors_are_the_pipelines(name: str, negative: str | None, tmp_path: Path) -> None:
    pipe = pipeline(name)
    if name == "ldm" or (negative is None and name in ("pixart", "pixart-sigma", "sana")):
        negative = negative or ""
    text = native(pipe, tmp_path)
    expected = theirs(pipe, PROMPTS, negative)
    found = text.encode(PROMPTS)
    assert_equal(found, expected["tokens"], expected.get("mask"), expected.get("pooled"))
    assert found.hidden.shape[-1] == text.spec.width == WIDTH
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
def test_pictures_are_the_pipelines(name: str, negative: str | None, tmp_path: Path) -> None:
    """Prompts of several lengths, guided: within one grey level."""
    pipe = pipeline(name)
    pipe.save_pretrained(tmp_path)
    ours = BridgePipeline.native(tmp_path, device="cpu")
    vision: Any = ours.bridge.vision
    size = {"height": 32, "width": 32}
    shape = vision.latent_shape(**size)
    noise = initial_noise(shape, range(len(PROMPTS)))
    if name != "flux":  # whose own scheduler takes our Euler steps
        pipe.scheduler = make_scheduler(vision.scheduler, "euler", vision.flow_shift(shape))
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
def test_encoders_that_take_turns_read_the_same(name: str, tmp_path: Path) -> None:
    pipe = pipeline(name)
    whole = native(pipe, tmp_path)
    turns = native_text(component("vision", str(tmp_path)), unload=True)
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
def test_a_token_knows_its_characters(name: str, tmp_path: Path) -> None:
    text = native(pipeline(name), tmp_path)
    prompt = "a red circle"
    spans = text.spans(prompt)
    assert len(spans) == text.encode([prompt]).hidden.shape[2]
    words = {prompt[start:end].strip() for start, end in spans if end > start}
    assert "red" in " ".join(sorted(words)) or any("red".startswith(word) for word in words if word)
    assert all(0 <= start <= end <= len(prompt) for start, end in spans)


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
    toy: Any = registry.load("vision", "sd")
    with pytest.raises(ModelError, match="random toy"):
        native_text(toy(toy.Config(source="random")))
    pipe = pipeline("sdxl")
    pipe.save_pretrained(tmp_path)
    (tmp_path / "text_encoder_2" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="text_encoder_2"):
        native_text(component("vision", str(tmp_path)))
    index = (tmp_path / "model_index.json").read_text()
    (tmp_path / "model_index.json").write_text(index.replace("CLIPTextModelWithProjection", "NoSuchModel"))
    with pytest.raises(ModelError, match="NoSuchModel"):
        native_text(component("vision", str(tmp_path)))
