"""Generates the images of one call in batches; a non-finite image does not stop the others.

texts --encode once--> for each batch: RequestState --denoise, step by step--> latents --decode--> images
"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor

from lavibridge.bridge import Bridge
from lavibridge.core.errors import RecipeError
from lavibridge.generation.checks import check_count, check_step_cache
from lavibridge.generation.denoise import DenoiserCalls, take_denoising_step
from lavibridge.generation.emphasis import WeightedPrompt
from lavibridge.generation.noise import NoiseSource
from lavibridge.generation.nonfinite_images import NonfiniteImageError
from lavibridge.generation.output import check_output_type, collect_output, convert_output
from lavibridge.generation.prompt_encoding import EncodedPrompt, encode_prompts
from lavibridge.generation.request_state import DenoisingSettings, RequestState

StepCallback = Callable[[int, Tensor, dict[str, Any]], dict[str, Any] | None]
"""(step from 0, timestep, {"latents": ...}) -> a mapping with new latents, or None to keep them."""
ImageCallback = Callable[[int, Any], None]
"""(index of the image from 0, image) -> None."""


@dataclass(frozen=True, kw_only=True)
class BatchPrompts:
    """The prompts of one call; all images of the first prompt come first, then those of the second."""

    prompts: tuple[WeightedPrompt, ...]
    negative_prompts: tuple[WeightedPrompt, ...]
    """One for each prompt."""
    images_per_prompt: int
    encoded: Mapping[WeightedPrompt, EncodedPrompt] = field(default_factory=dict)
    """Prompts that are encoded already: pictures in place of texts."""

    def prompt_of(self, picture: int) -> WeightedPrompt:
        """The prompt of an image, by the image's index from 0."""
        return self.prompts[picture // self.images_per_prompt]

    def negative_prompt_of(self, picture: int) -> WeightedPrompt:
        """The negative prompt of an image, by the image's index from 0."""
        return self.negative_prompts[picture // self.images_per_prompt]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.prompts) * self.images_per_prompt


@dataclass(frozen=True, kw_only=True)
class BatchedGeneration:
    """Generates the images of one call in batches of ``batch_size``."""

    settings: DenoisingSettings
    texts: BatchPrompts
    noise: NoiseSource
    batch_size: int
    layout: DenoiserCalls
    step_cache: float | None
    output_type: str

    def __post_init__(self) -> None:
        check_count("batch_size", self.batch_size)
        check_step_cache(self.step_cache)
        check_output_type(self.output_type)

    def draw(self, bridge: Bridge, on_step: StepCallback | None, on_image: ImageCallback | None) -> Any:
        """Generate all images and return them as ``output_type`` demands.

        Raises NonfiniteImageError, which holds the other images, if some are not finite.
        """
        negative_prompts = self.texts.negative_prompts if self.settings.is_ever_guided else ()
        encoded = dict(self.texts.encoded)
        texts = [each for each in (*negative_prompts, *self.texts.prompts) if each not in encoded]
        encoded |= encode_prompts(bridge, texts, self.batch_size)
        images: list[Any] = []
        reasons: dict[int, str] = {}
        for start in range(0, len(self.texts), self.batch_size):
            places = range(start, min(start + self.batch_size, len(self.texts)))
            state = self._begin(places, encoded, bridge)
            with nullcontext() if self.step_cache is None else bridge.vision.use_step_cache(self.step_cache):
                self._denoise(state, bridge, on_step)
            latents = state.sampling.latents
            values = latents if self.output_type == "latent" else bridge.vision.decode(latents)
            faults = state.faults(None if self.output_type == "latent" else values)
            for row, image in enumerate(convert_output(values, self.output_type)):
                if row in faults:
                    reasons[start + row] = faults[row]
                elif on_image is not None:
                    on_image(start + row, image)
                images.append(None if row in faults else image)
        if reasons:
            prompts = [self.texts.prompt_of(place).text for place in range(len(self.texts))]
            raise NonfiniteImageError(prompts, images, reasons)
        return collect_output(images, self.output_type)

    def _begin(
        self, places: range, encoded: dict[WeightedPrompt, EncodedPrompt], bridge: Bridge
    ) -> RequestState:
        negative_prompts = map(self.texts.negative_prompt_of, places if self.settings.is_ever_guided else ())
        return RequestState(
            bridge.vision,
            self.settings,
            [encoded[prompt] for prompt in map(self.texts.prompt_of, places)],
            [encoded[prompt] for prompt in negative_prompts],
            self.noise(places).to(bridge.device),
        )

    def _denoise(self, state: RequestState, bridge: Bridge, on_step: StepCallback | None) -> None:
        while not state.is_finished:
            step, t = state.sampling.step, state.sampling.t
            take_denoising_step([state], bridge, self.layout)
            if on_step is not None:
                changed = on_step(step, t, {"latents": state.sampling.latents}) or {}
                state.sampling.replace(_checked(changed, state.sampling.latents))


def _checked(changed: dict[str, Any], latents: Float[Tensor, "batch channel h w"]) -> Tensor:
    """The latents to continue from after a callback. Raises RecipeError if it changed their shape."""
    found: Tensor = changed.get("latents", latents)
    if found.shape != latents.shape:
        raise RecipeError(
            f"callback_on_step_end returned latents of shape {tuple(found.shape)}: return them in the shape "
            f"{tuple(latents.shape)}"
        )
    return found
