"""`BridgePipeline`: prompts in, pictures out, called like a Diffusers pipeline.

    pipe = BridgePipeline.from_pretrained("runs/quickstart")
    image = pipe("a red circle", num_inference_steps=20, guidance_scale=4.0, seed=0).images[0]

prompts --encode once--> EncodedPrompt --RequestState, advance, a batch at a time--> latents --> pictures
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from lavibridge.bridge import Bridge
from lavibridge.bridge.choices import ModelChoice, model_of_choice, native_text_encoders
from lavibridge.bridge.dtype import convert_dtype
from lavibridge.bridge.hub import upload_bridge_to_hub
from lavibridge.bridge.weight_checks import require_weights
from lavibridge.core.device import dtype_name, pick_device
from lavibridge.core.errors import ModelError
from lavibridge.core.files import SAFETENSORS, require_empty_folder, shipped_models
from lavibridge.core.paths import expand_path
from lavibridge.core.sources import find_model_file, is_hub_id
from lavibridge.diffusion.guidance import GuidanceInterval
from lavibridge.generation import checks
from lavibridge.generation.batched_generation import (
    BatchedGeneration,
    BatchPrompts,
    ImageCallback,
)
from lavibridge.generation.denoise import SEPARATE_DENOISER_CALLS, DenoiserCalls
from lavibridge.generation.noise import NoiseGenerators, noise_source
from lavibridge.generation.output import BridgePipelineOutput
from lavibridge.generation.quality import EXACT_QUALITY
from lavibridge.generation.request_state import resolve_denoising_settings
from lavibridge.pivot import compose
from lavibridge.vision.base import VisionModel

OnStepEnd = Callable[["BridgePipeline", int, Tensor, dict[str, Any]], dict[str, Any] | None]


class BridgePipeline:
    """Draws with a bridge, which it holds as ``bridge`` and does not copy."""

    def __init__(self, bridge: Bridge, layout: DenoiserCalls = SEPARATE_DENOISER_CALLS) -> None:
        """``layout`` decides which rows share a call of the denoiser (`generation/denoise.py`)."""
        self.bridge, self.layout = bridge, layout

    @staticmethod
    def from_pretrained(
        source: str | PathLike[str],
        *,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype | None = None,
        revision: str | None = None,
        offload: str | PathLike[str] | None = None,
    ) -> "BridgePipeline":
        """Open a bridge to draw with, its LoRA merged; or a vision model, as ``native`` does.

        ``source`` is a run folder, a checkpoint, a folder or hub id of a saved bridge; or a vision model: a
        shipped one's name, a folder as Diffusers saves it, a single-file checkpoint beside a folder of its
        configurations, or its hub id. ``dtype`` (float32, bfloat16, float16) replaces the saved number format
        of both frozen models. ``revision`` is the branch, tag or commit of a hub id. ``offload`` is a new
        folder for the denoiser's weights, of which memory then holds one block at a time. Raises RunError or
        ModelError where nothing can be opened.
        """
        if _is_vision_model(source, revision):
            return BridgePipeline.native(
                {"source": str(source), "revision": revision}, device=device, dtype=dtype, offload=offload
            )
        return BridgePipeline(Bridge.from_pretrained(source, device, dtype, revision).merge())._offloaded(
            offload
        )

    @staticmethod
    def native(
        vision: ModelChoice,
        *,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype | None = None,
        max_sequence_length: int | None = None,
        unload_text_encoders: bool = False,
        offload: str | PathLike[str] | None = None,
    ) -> "BridgePipeline":
        """A published vision model as it is: under its own text encoders and padding, with nothing trained.

        It draws what the family's Diffusers pipeline draws. ``vision`` is chosen as in `Bridge.compose`.
        ``max_sequence_length`` replaces the pipeline's default, where it has that argument. With
        ``unload_text_encoders``, each encoder is loaded when prompts are read and let go before the next.
        ``offload`` is a new folder for the denoiser's weights, of which memory then holds one block at a
        time. ModelError where the folder lacks a text encoder, or is a random toy.
        """
        model: VisionModel = model_of_choice("vision", vision)
        bridge = Bridge.compose(
            language=native_text_encoders(model, max_sequence_length, unload_text_encoders),
            vision=model,
            connector="identity",
            language_lora=None,
            vision_lora=None,
        )
        bridge.origin = {"model": model.config.source}
        pipe = BridgePipeline(bridge.to(pick_device(str(device))).eval())
        return (pipe if dtype is None else pipe.to(dtype=dtype))._offloaded(offload)

    @staticmethod
    def from_pivot(
        pivot: str | PathLike[str],
        language: ModelChoice,
        vision: ModelChoice,
        *,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype | None = None,
    ) -> "BridgePipeline":
        """Open a language model and a vision model that meet in a pivot, trained together or not.

        ``pivot`` is its folder; ``language`` and ``vision`` are names of halves or their models, as in
        `lavibridge.pivot.compose`. Raises RunError or ModelError where they do not fit.
        """
        number_format = None if dtype is None else dtype_name(dtype)
        bridge = compose(pivot, language, vision, dtype=number_format)
        return BridgePipeline(bridge.to(pick_device(str(device))))

    @property
    def device(self) -> torch.device:
        """Where the vision model's weights lie."""
        return self.bridge.device

    def to(
        self,
        device: str | torch.device | torch.dtype | None = None,
        dtype: str | torch.dtype | None = None,
    ) -> "BridgePipeline":
        """Move the bridge to a device, and give its frozen models another number format; returns itself.

        LoRA weights, connector, latents and autoencoder stay float32. Raises ModelError if the denoiser is
        offloaded.
        """
        if self.bridge.vision.is_offloaded:
            raise ModelError(
                "the denoiser is offloaded and stays where and as it is: name device and dtype where it is "
                "loaded"
            )
        if isinstance(device, torch.dtype):
            device, dtype = None, device
        if device is not None:
            self.bridge.to(pick_device(str(device)))
        if dtype is not None:
            convert_dtype(self.bridge, dtype_name(dtype))
        return self

    def save_pretrained(self, folder: str | PathLike[str]) -> None:
        """Write the bridge into a folder, as `Bridge.save_pretrained` does."""
        self.bridge.save_pretrained(folder)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        commit_message: str = "Upload a bridge",
    ) -> str:
        """Upload the bridge with a model card to the Hugging Face hub, and return the commit's URL.

        Creates the repository OWNER/NAME if it does not exist. Raises ModelError where a frozen model is a
        folder, which nobody else could load, and RunError where the hub refuses.
        """
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return upload_bridge_to_hub(
                Path(folder), repo_id, private=private, token=token, message=commit_message
            )

    @torch.no_grad()  # not inference_mode, for which FSDP2 would gather the weights once more
    def __call__(
        self,
        prompt: str | Sequence[str],
        negative_prompt: str | Sequence[str] | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        height: int | None = None,
        width: int | None = None,
        num_images_per_prompt: int = 1,
        generator: NoiseGenerators = None,
        seed: int | Sequence[int] | None = None,
        quality: str = EXACT_QUALITY,
        guidance_interval: GuidanceInterval | None = None,
        sampler: str | None = None,
        prompt_weighting: bool = False,
        step_cache: float | None = None,
        batch_size: int = 16,
        output_type: str = "pil",
        callback_on_step_end: OnStepEnd | None = None,
        callback_on_image: ImageCallback | None = None,
    ) -> BridgePipelineOutput:
        """Draw ``num_images_per_prompt`` pictures of each prompt, in the order of the prompts.

        ``negative_prompt`` is one for all prompts or one for each. ``quality`` is exact, high or fast
        (`generation/quality.py`); it sets ``num_inference_steps``, ``guidance_interval`` (start and stop as
        shares of the steps) and ``sampler`` where they are None. The bridge sets ``guidance_scale`` (1: no
        guidance), the vision model ``height`` and ``width`` in pixels. ``generator`` or ``seed`` gives the
        noise (`generation/noise.py`); with a seed, the pictures of a prompt have seed, seed + 1, ...
        ``prompt_weighting`` reads ``(red:1.3)`` as a weight. ``step_cache``, such as 0.1, lets steps of
        PixArt and FLUX reuse the one before. ``batch_size`` changes a picture by rounding only.
        ``output_type`` is pil, np, pt or latent (`generation/output.py`).

        ``callback_on_step_end(pipe, step, timestep, {"latents": ...})`` runs after each step of a batch and
        may return other latents; ``callback_on_image(index, image)`` runs after each finished picture. Raises
        RecipeError or ModelError before it draws, NotDrawnError, with the others, for pictures not finite.
        """
        settings = resolve_denoising_settings(
            self.bridge,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            guidance_interval=guidance_interval,
            sampler=sampler,
            quality=quality,
            height=height,
            width=width,
        )
        texts = self._read(prompt, negative_prompt, num_images_per_prompt, prompt_weighting)
        drawing = BatchedGeneration(
            settings=settings,
            texts=texts,
            noise=noise_source(settings.shape, len(texts.prompts), num_images_per_prompt, seed, generator),
            batch_size=batch_size,
            layout=self.layout,
            step_cache=step_cache,
            output_type=output_type,
        )
        on_step = callback_on_step_end and partial(callback_on_step_end, self)
        with _evaluation_mode(self.bridge):
            return BridgePipelineOutput(images=drawing.draw(self.bridge, on_step, callback_on_image))

    def _offloaded(self, folder: str | PathLike[str] | None) -> "BridgePipeline":
        """Offload the denoiser into a new folder, if one is named; returns itself."""
        if folder is not None:
            self.bridge.vision.enable_group_offload(self.device, str(require_empty_folder(folder)))
        return self

    def _read(
        self,
        prompt: str | Sequence[str],
        negative_prompt: str | Sequence[str] | None,
        images_per_prompt: int,
        prompt_weighting: bool,
    ) -> BatchPrompts:
        """The checked texts of a call; warns about prompts that exceed the token limit."""
        require_weights(self.bridge, "draw with")
        checks.check_count("num_images_per_prompt", images_per_prompt)
        prompts = checks.check_prompts(prompt, prompt_weighting)
        negative_prompts = checks.check_negative_prompts(negative_prompt, len(prompts), prompt_weighting)
        checks.check_word_weights((*prompts, *negative_prompts), self.bridge.connector)
        checks.warn_about_long_prompts(prompts, self.bridge.language)
        return BatchPrompts(
            prompts=prompts, negative_prompts=negative_prompts, images_per_prompt=images_per_prompt
        )


def _is_vision_model(source: str | PathLike[str], revision: str | None) -> bool:
    """Whether a source is a vision model, with or without a pipeline around it, and no bridge."""
    path = expand_path(source)
    if str(source) in shipped_models() or (path / "model_index.json").is_file():
        return True
    if path.suffix.lower() == SAFETENSORS and not path.is_dir():
        return True
    if path.exists() or not is_hub_id(source):
        return False
    return find_model_file(str(source), "model_index.json", revision) is not None


@contextmanager
def _evaluation_mode(bridge: Bridge) -> Iterator[None]:
    """The bridge in evaluation mode; afterwards each module has its own mode again."""
    modes = {module: module.training for module in bridge.modules()}
    bridge.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
