"""`BridgePipeline` generates images from prompts, and is called like a Diffusers pipeline.

    pipe = BridgePipeline.from_pretrained("runs/quickstart")
    image = pipe("a red circle", num_inference_steps=20, guidance_scale=4.0, seed=0).images[0]

prompts --encode once--> EncodedPrompt --RequestState, denoise in batches--> latents --decode--> images
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from lavibridge.bridge import Bridge
from lavibridge.bridge.bridge_file import is_bridge_file
from lavibridge.bridge.choices import (
    ModelChoice,
    model_of_choice,
    native_text_encoders,
    with_options,
)
from lavibridge.bridge.dtype import convert_dtype
from lavibridge.bridge.hub import upload_to_hub, write_hub_card
from lavibridge.bridge.weight_checks import require_own_weights, require_weights
from lavibridge.core.device import dtype_name, pick_device
from lavibridge.core.errors import RecipeError
from lavibridge.core.files import require_empty_folder, shipped_models
from lavibridge.core.paths import expand_path
from lavibridge.core.placement import Placement, Quantization, pick_storage_dtype
from lavibridge.core.sources import GGUF, SAFETENSORS, find_model_file, is_hub_id
from lavibridge.diffusion.guidance import GuidanceInterval
from lavibridge.generation import checks
from lavibridge.generation.batched_generation import (
    BatchedGeneration,
    BatchPrompts,
    ImageCallback,
)
from lavibridge.generation.denoise import SEPARATE_DENOISER_CALLS, DenoiserCalls
from lavibridge.generation.emphasis import read_emphasis
from lavibridge.generation.noise import NoiseGenerators, noise_source
from lavibridge.generation.output import BridgePipelineOutput
from lavibridge.generation.prompt_encoding import encode_pictures
from lavibridge.generation.quality import EXACT_QUALITY
from lavibridge.generation.request_state import resolve_denoising_settings
from lavibridge.pivot import compose
from lavibridge.pivot.folder import read_pivot
from lavibridge.pivot.image_reader import ImageReader
from lavibridge.vision.base import VisionModel

Prompts = str | Sequence[str] | Image.Image | Sequence[Image.Image]
"""What to draw: descriptions, or pictures that an image encoder reads."""
OnStepEnd = Callable[["BridgePipeline", int, Tensor, dict[str, Any]], dict[str, Any] | None]


class BridgePipeline:
    """Generates images with a bridge, which stays available as ``bridge`` and is not copied."""

    def __init__(
        self,
        bridge: Bridge,
        layout: DenoiserCalls = SEPARATE_DENOISER_CALLS,
        image_reader: ImageReader | None = None,
    ) -> None:
        """``layout`` decides which rows share a call of the denoiser (`generation/denoise.py`);
        ``image_reader`` reads pictures in place of prompts.
        """
        self.bridge, self.layout, self.image_reader = bridge, layout, image_reader

    @staticmethod
    def from_pretrained(
        source: str | PathLike[str],
        *,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype | None = None,
        revision: str | None = None,
        quantize: Quantization | None = None,
        storage_dtype: str | torch.dtype | None = None,
        offload: str | PathLike[str] | None = None,
    ) -> "BridgePipeline":
        """Load a bridge and merge its LoRA; or load a vision model, as ``native`` does.

        ``source`` is a run folder, a checkpoint, or the folder, single file or hub id of a saved bridge. It
        can also be a vision model: a shipped model's name, a Diffusers folder, a hub id, or a single-file
        checkpoint beside a folder of its configurations. ``dtype`` (float32, bfloat16, float16) replaces the
        saved number format of both frozen models. ``revision`` is the branch, tag or commit of a hub id.
        ``quantize`` (8bit, 4bit) loads the linear layers of both frozen models in so many bits, with LoRA
        beside them. ``storage_dtype`` (float8_e4m3fn, float8_e5m2) stores the denoiser's layers, which are
        cast to ``dtype`` while they run. ``offload`` is a new folder for the denoiser's weights; memory then
        holds one block of them at a time. Raises RunError or ModelError if the source is none of these or
        cannot be loaded.
        """
        if _is_vision_model(source, revision):
            return BridgePipeline.native(
                {"source": str(source), "revision": revision},
                device=device,
                dtype=dtype,
                quantize=quantize,
                storage_dtype=storage_dtype,
                offload=offload,
            )
        final = _final_placement(storage_dtype, offload)
        bridge = Bridge.from_pretrained(source, device, dtype, revision, quantize).merge_full_weights()
        return BridgePipeline(bridge)._finalized(final)

    @staticmethod
    def native(
        vision: ModelChoice,
        *,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype | None = None,
        max_sequence_length: int | None = None,
        unload_text_encoders: bool = False,
        quantize: Quantization | None = None,
        storage_dtype: str | torch.dtype | None = None,
        offload: str | PathLike[str] | None = None,
    ) -> "BridgePipeline":
        """Load a published vision model with its own text encoders and padding; nothing is trained.

        The pipeline generates the same images as the family's Diffusers pipeline. ``vision`` is a source, a
        mapping or a loaded model, as in `Bridge.compose`. ``max_sequence_length`` replaces the default of
        Diffusers pipelines that have this argument. With ``unload_text_encoders``, each text encoder is
        loaded to encode prompts, and freed before the next one is loaded. ``quantize``, ``storage_dtype`` and
        ``offload`` concern the denoiser, as in ``from_pretrained``. Raises ModelError if the folder lacks a
        text encoder, or if the model is a random toy.
        """
        final = _final_placement(storage_dtype, offload)
        changed = {} if dtype is None else {"dtype": dtype_name(dtype)}
        changed |= {} if quantize is None else {"quantize": quantize}
        model: VisionModel = model_of_choice("vision", with_options(vision, changed))
        bridge = Bridge.compose(
            language=native_text_encoders(model, max_sequence_length, unload_text_encoders),
            vision=model,
            connector="identity",
            language_lora=None,
            vision_lora=None,
        )
        bridge.origin = {"model": model.config.source}
        pipe = BridgePipeline(bridge.to(pick_device(str(device))).eval())
        return (pipe if dtype is None else pipe.to(dtype=dtype))._finalized(final)

    @staticmethod
    def from_pivot(
        pivot: str | PathLike[str],
        language: ModelChoice | None,
        vision: ModelChoice,
        *,
        image_encoder: ModelChoice | None = None,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype | None = None,
    ) -> "BridgePipeline":
        """Connect a language model and a vision model through a pivot, whether trained together or not.

        ``pivot`` is a folder; ``language``, ``vision`` and ``image_encoder`` are names of halves or their
        models, as in `lavibridge.pivot.compose`. With an image encoder the pipeline also draws what pictures
        show. If ``language`` is None, the pivot's first language model reads the negative prompts. Raises
        RunError or ModelError if they do not fit.
        """
        number_format = None if dtype is None else dtype_name(dtype)
        reader = (
            None if image_encoder is None else ImageReader.from_pivot(pivot, image_encoder, number_format)
        )
        read = read_pivot(pivot).description.reference if language is None else language
        bridge = compose(pivot, read, vision, dtype=number_format)
        place = pick_device(str(device))
        return BridgePipeline(bridge.to(place), image_reader=None if reader is None else reader.to(place))

    @property
    def device(self) -> torch.device:
        """The device of the vision model's weights."""
        return self.bridge.device

    def to(
        self,
        device: str | torch.device | torch.dtype | None = None,
        dtype: str | torch.dtype | None = None,
    ) -> "BridgePipeline":
        """Move the bridge to a device, convert its frozen models to a number format, and return the pipeline.

        LoRA weights, connector, latents and autoencoder stay in float32. Raises ModelError if the denoiser is
        offloaded or stored in 8-bit floating point.
        """
        require_own_weights(self.bridge, "move or convert")
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
        license: str | None = None,
        token: str | None = None,
        commit_message: str = "Upload a bridge",
    ) -> str:
        """Upload the bridge with a model card to the Hugging Face hub, and return the commit's URL.

        Creates the repository OWNER/NAME if it does not exist. ``license`` is the hub's name of the bridge's
        licence, such as apache-2.0. Raises RecipeError for another form of ``repo_id``, ModelError if a
        frozen model is a local folder, which nobody else could load, and RunError if the hub refuses the
        upload.
        """
        with TemporaryDirectory() as place:
            folder = Path(place)
            self.save_pretrained(folder)
            write_hub_card(folder, repo_id, license)
            return upload_to_hub(folder, repo_id, private=private, token=token, message=commit_message)

    @torch.no_grad()  # under inference_mode, FSDP2 would gather the weights once more
    def __call__(
        self,
        prompt: Prompts,
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
        """Generate ``num_images_per_prompt`` images of each prompt, in the order of the prompts.

        A prompt is a text or, with an image encoder (``from_pivot``), a picture. ``negative_prompt`` is one
        for all prompts or one for each. ``quality`` is exact, high or fast (`generation/quality.py`); it sets
        ``num_inference_steps``, ``guidance_interval`` (start and stop as shares of the steps) and ``sampler``
        if they are None. The bridge has a default ``guidance_scale`` (1: no guidance), the vision model a
        default ``height`` and ``width`` in pixels. ``generator`` or ``seed`` determines the noise
        (`generation/noise.py`); with a seed, the images of a prompt have seed, seed + 1, ...
        ``prompt_weighting`` reads ``(red:1.3)`` as a weight. ``step_cache``, such as 0.1, lets PixArt and
        FLUX reuse steps. ``batch_size`` changes rounding only. ``output_type`` is pil, np, pt or latent.

        ``callback_on_step_end(pipe, step, timestep, {"latents": ...})`` runs after each step of a batch and
        may return new latents; ``callback_on_image(index, image)`` runs after each finished image. Raises
        RecipeError or ModelError before it starts, NonfiniteImageError (with the others) for failed images.
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

    def _finalized(self, placement: Placement) -> "BridgePipeline":
        """Put the denoiser's weights where ``placement`` says, if it is final; returns itself."""
        if placement.is_final:
            self.bridge.vision.finalize_weights(replace(placement, device=self.device))
        return self

    def _read(
        self,
        prompt: Prompts,
        negative_prompt: str | Sequence[str] | None,
        images_per_prompt: int,
        prompt_weighting: bool,
    ) -> BatchPrompts:
        """Check and read the prompts; warns about every prompt that exceeds the token limit."""
        require_weights(self.bridge, "draw with")
        checks.check_count("num_images_per_prompt", images_per_prompt)
        texts, pictures = checks.texts_and_pictures(prompt)
        if pictures:
            return self._read_pictures(pictures, negative_prompt, images_per_prompt)
        prompts = checks.check_prompts(texts, prompt_weighting)
        negative_prompts = checks.check_negative_prompts(negative_prompt, len(prompts), prompt_weighting)
        checks.check_word_weights((*prompts, *negative_prompts), self.bridge)
        checks.warn_about_long_prompts(prompts, self.bridge.language)
        return BatchPrompts(
            prompts=prompts, negative_prompts=negative_prompts, images_per_prompt=images_per_prompt
        )

    def _read_pictures(
        self,
        pictures: Sequence[Image.Image],
        negative_prompt: str | Sequence[str] | None,
        images_per_prompt: int,
    ) -> BatchPrompts:
        """Encode pictures in place of prompts. Raises RecipeError without an image encoder."""
        if self.image_reader is None:
            raise RecipeError(
                "the prompt is a picture, but the pipeline has no image encoder: pass one to "
                "BridgePipeline.from_pivot"
            )
        named = {f"picture {number}": picture for number, picture in enumerate(pictures, start=1)}
        read = {read_emphasis(name, False): picture for name, picture in named.items()}
        return BatchPrompts(
            prompts=tuple(read),
            negative_prompts=checks.check_negative_prompts(negative_prompt, len(read)),
            images_per_prompt=images_per_prompt,
            encoded=encode_pictures(self.bridge, self.image_reader, read),
        )


def _final_placement(
    storage_dtype: str | torch.dtype | None, offload: str | PathLike[str] | None
) -> Placement:
    """Check these options before anything loads."""
    return Placement(
        storage_dtype=None if storage_dtype is None else pick_storage_dtype(str(storage_dtype)),
        offload=None if offload is None else require_empty_folder(offload),
    )


def _is_vision_model(source: str | PathLike[str], revision: str | None) -> bool:
    """Whether the source is a vision model and not a bridge."""
    path = expand_path(source)
    if is_bridge_file(path):
        return False
    if str(source) in shipped_models() or (path / "model_index.json").is_file():
        return True
    if path.suffix.lower() in (SAFETENSORS, GGUF) and not path.is_dir():
        return True
    if path.exists() or not is_hub_id(source):
        return False
    return find_model_file(str(source), "model_index.json", revision) is not None


@contextmanager
def _evaluation_mode(bridge: Bridge) -> Iterator[None]:
    """Put the bridge into evaluation mode, and restore each module's own mode afterwards."""
    modes = {module: module.training for module in bridge.modules()}
    bridge.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
