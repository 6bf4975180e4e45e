"""The state of a request: images in the middle of denoising, with one sampler and one guidance.

    noise --one step of the sampler for each prediction--> latents --autoencoder--> images

The state provides the denoiser's next input and takes its prediction; `denoise.py` calls the denoiser.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Num
from torch import Tensor

from lavibridge.bridge import Bridge
from lavibridge.connectors.base import Connector
from lavibridge.core.contracts import Conditioning, TextFeatures
from lavibridge.diffusion.guidance import Guidance, GuidanceInterval
from lavibridge.diffusion.objective import predict_x0
from lavibridge.generation.attention_maps import AttentionMaps
from lavibridge.generation.nonfinite_images import first_nonfinite_stage
from lavibridge.generation.prompt_encoding import EncodedPrompt
from lavibridge.generation.quality import EXACT_QUALITY, quality_gains_by_bfloat16, read_quality
from lavibridge.generation.sampling import Sampling, check_sampling_steps, make_sampler
from lavibridge.vision.base import VisionModel


@dataclass(frozen=True, kw_only=True)
class DenoisingSettings:
    """The settings of denoising that do not depend on prompts and seeds."""

    num_inference_steps: int
    guidance: Guidance
    sampler: str
    shape: tuple[int, int, int]
    """Channels, height and width of the latents."""
    autocast: bool
    """Whether the denoiser computes in bfloat16."""

    @property
    def is_ever_guided(self) -> bool:
        """Whether any step needs the negative prompt."""
        steps = self.num_inference_steps
        return any(self.guidance.applies(step, steps) for step in range(steps))


def resolve_denoising_settings(
    bridge: Bridge,
    *,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    guidance_interval: GuidanceInterval | None = None,
    sampler: str | None = None,
    quality: str = EXACT_QUALITY,
    height: int | None = None,
    width: int | None = None,
) -> DenoisingSettings:
    """Replace each None with the default of the quality preset, the bridge or the vision model.

    Raises RecipeError for a value out of range, and ModelError for a size that the vision model cannot
    generate.
    """
    vision, defaults = bridge.vision, read_quality(quality)
    guidance = Guidance(
        scale=bridge.default_guidance_scale if guidance_scale is None else guidance_scale,
        interval=defaults.guidance_interval if guidance_interval is None else guidance_interval,
    )
    steps = defaults.num_inference_steps if num_inference_steps is None else num_inference_steps
    check_sampling_steps(steps, len(vision.times))
    return DenoisingSettings(
        num_inference_steps=steps,
        guidance=guidance,
        sampler=defaults.sampler if sampler is None else sampler,
        shape=vision.latent_shape(height or vision.default_size, width or vision.default_size),
        autocast=defaults.bfloat16 and quality_gains_by_bfloat16(bridge.device),
    )


class RequestState:
    """One or more images that start together and share a sampler."""

    def __init__(
        self,
        vision: VisionModel,
        settings: DenoisingSettings,
        prompts: Sequence[EncodedPrompt],
        negative_prompts: Sequence[EncodedPrompt],
        noise: Float[Tensor, "batch channel h w"],
        has_attention_maps: bool = False,
    ) -> None:
        """``negative_prompts`` has one entry for each prompt, or is empty if no step is guided."""
        self.settings = settings
        self.prompts, self.negative_prompts = tuple(prompts), tuple(negative_prompts)
        scheduler = make_sampler(
            vision.scheduler,
            settings.sampler,
            vision.flow_shift(settings.shape, settings.num_inference_steps),
            vision.step_spacing,
        )
        self._guide = vision.guide
        self.sampling = Sampling(scheduler, noise, settings.num_inference_steps)
        self.attention_maps = tuple(
            AttentionMaps(vision, settings.shape) for _ in prompts if has_attention_maps
        )
        """One for each image, or none without ``has_attention_maps``."""
        self._conditioning: dict[bool, Conditioning] = {}
        self._last: tuple[Tensor, Tensor, Tensor] | None = None

    @property
    def is_finished(self) -> bool:
        """Whether every step is taken."""
        return self.sampling.is_finished

    @property
    def is_guided(self) -> bool:
        """Whether the next step also needs predictions under the negative prompts."""
        return self.settings.guidance.applies(self.sampling.step, self.settings.num_inference_steps)

    @property
    def texts(self) -> tuple[EncodedPrompt, ...]:
        """The prompt of each row of the next step: if it is guided, the negative prompts come first."""
        return (*self.negative_prompts, *self.prompts) if self.is_guided else self.prompts

    @property
    def noisy(self) -> Float[Tensor, "row channel h w"]:
        """The latents of each row of the next step, scaled for the denoiser."""
        noisy = self.sampling.noisy
        return torch.cat([noisy, noisy]) if self.is_guided else noisy

    def maps_by_row(self) -> dict[int, AttentionMaps]:
        """The attention maps that record rows of the next step, by row."""
        first = len(self.texts) - len(self.prompts)
        return dict(enumerate(self.attention_maps, start=first))

    def condition(self, connector: Connector, t: Num[Tensor, " row"]) -> Conditioning:
        """Return the conditioning of all rows as one batch; a connector without time computes it once."""
        known = self._conditioning.get(self.is_guided)
        if known is not None:
            return known
        if any(text.is_conditioned for text in self.texts):  # their features do not fit the connector
            conditioning = Conditioning.pad([text.condition(connector, t[:1]) for text in self.texts])
        else:
            conditioning = connector(TextFeatures.pad([text.features for text in self.texts]), t)
        if not connector.time_aware:
            self._conditioning[self.is_guided] = conditioning
        return conditioning

    def take(self, predictions: Float[Tensor, "row channel h w"]) -> None:
        """Take one step, given the denoiser's prediction for each row."""
        if self.is_guided:
            unconditional, conditional = predictions.chunk(2)
            predictions = self._guide(unconditional, conditional, self.settings.guidance.scale)
        self._last = (self.sampling.noisy, self.sampling.t, predictions)
        self.sampling.take(predictions)

    def predicted_x0(self, vision: VisionModel) -> Float[Tensor, "batch channel h w"]:
        """The clean latents that the last prediction implies; decode them for a preview."""
        assert self._last is not None, "a preview needs a step"
        noisy, t, prediction = self._last
        nearest = int((vision.times.float() - t.to(vision.times)).abs().argmin())
        alpha, sigma = vision.alphas[nearest].expand(len(noisy)), vision.sigmas[nearest].expand(len(noisy))
        return predict_x0(vision.prediction_type, prediction, noisy, alpha, sigma)

    def faults(self, decoded: Float[Tensor, "batch 3 height width"] | None) -> dict[int, str]:
        """The index of each image that is not finite -> the first stage that has NaN or infinity."""
        reasons: dict[int, str] = {}
        negatives = self.negative_prompts or (None,) * len(self.prompts)
        for place, (prompt, negative) in enumerate(zip(self.prompts, negatives, strict=True)):
            texts = [each.features for each in (prompt, negative) if each is not None]
            reason = first_nonfinite_stage(
                {
                    "the language model's features": [value for text in texts for value in _values(text)],
                    "the latents that connector and denoiser produce": [self.sampling.latents[place]],
                    "the values that the autoencoder decodes from the latents": [
                        None if decoded is None else decoded[place]
                    ],
                }
            )
            if reason:
                reasons[place] = reason
        return reasons


def _values(features: TextFeatures) -> tuple[Tensor | None, ...]:
    return features.hidden, features.pooled, features.context_free, features.passthrough_tokens
