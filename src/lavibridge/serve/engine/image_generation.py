"""One image in progress: its request, its model and its state in the denoising driver."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from lavibridge.generation.denoise import take_denoising_step
from lavibridge.generation.noise import initial_noise
from lavibridge.generation.nonfinite_images import NonfiniteImageError
from lavibridge.generation.output import to_pil_images
from lavibridge.generation.request_state import RequestState, resolve_denoising_settings
from lavibridge.serve.engine.request import Request
from lavibridge.serve.engine.served_model import ServedModel


class ImageGeneration:
    """An image in progress."""

    def __init__(self, request: Request, model: ServedModel) -> None:
        """Encode the prompts and create the initial noise."""
        self.request, self.model = request, model
        bridge = model.bridge
        settings = resolve_denoising_settings(
            bridge,
            num_inference_steps=request.num_inference_steps,
            guidance_scale=request.guidance_scale,
            quality=request.quality,
            height=request.height,
            width=request.width,
        )
        negative = [model.encode(request.weighted_negative_prompt)] if settings.is_ever_guided else []
        self.state = RequestState(
            bridge.vision,
            settings,
            [model.encode(request.weighted_prompt)],
            negative,
            initial_noise(settings.shape, [request.seed]).to(bridge.device),
            request.has_attention_maps,
        )

    @property
    def is_finished(self) -> bool:
        """Whether all steps are done."""
        return self.state.is_finished

    def preview(self) -> Image.Image:
        """Return the clean image that the last prediction implies."""
        vision = self.model.bridge.vision
        return to_pil_images(vision.decode(self.state.predicted_x0(vision)))[0]

    def picture(self) -> Image.Image:
        """Return the finished image. Raises NonfiniteImageError if it is not finite."""
        decoded = self.model.bridge.vision.decode(self.state.sampling.latents)
        faults = self.state.faults(decoded)
        if faults:
            raise NonfiniteImageError([self.request.prompt], [None], faults)
        return to_pil_images(decoded)[0]

    def attention_maps(self) -> dict[str, Any] | None:
        """Return the words that each region attends to; None if not requested or not available."""
        if not self.state.attention_maps or not self.state.attention_maps[0].is_known:
            return None
        (maps,) = self.state.attention_maps
        if not self.model.keeps_tokens:
            return maps.by_token()
        prompt = self.request.encoded_text
        return maps.by_word(prompt, self.model.spans(prompt))


@torch.inference_mode()
def advance_generations(generations: Sequence[ImageGeneration]) -> None:
    """Take one step of each image; all must have the same model, size and autocast setting."""
    model = generations[0].model
    take_denoising_step([each.state for each in generations], model.bridge, model.layout)
