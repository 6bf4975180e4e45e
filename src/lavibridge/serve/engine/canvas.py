"""A canvas: one picture on its way from noise, with a sampler and a seed of its own.

    canvases --rows of all--> denoiser, once --> guidance, and one step of each one's own sampler

Canvases in one call may be at different steps, of different lengths, and under different guidance.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from lavibridge.diffusion.guidance import guide, is_guided
from lavibridge.diffusion.objective import predict_x0
from lavibridge.generation.draw import gather, why_not
from lavibridge.generation.finite import NotDrawnError
from lavibridge.generation.quality import gains_by_bfloat16, read_quality
from lavibridge.generation.sample import initial_noise, make_scheduler, sampling, to_images
from lavibridge.serve.engine.attention_maps import Attended
from lavibridge.serve.engine.painter import Painter, Read
from lavibridge.serve.engine.rows import Row, predict_rows
from lavibridge.serve.engine.wish import Wish


class Canvas:
    """A picture being drawn."""

    def __init__(self, wish: Wish, painter: Painter) -> None:
        """Reads the prompt and makes the noise."""
        self.wish, self.painter = wish, painter
        vision = painter.bridge.vision
        worth = read_quality(wish.quality)
        self.is_rounded = worth.bfloat16 and gains_by_bfloat16(painter.bridge.device)
        self.guided = [
            is_guided(step, wish.steps, wish.guidance, worth.guidance_interval) for step in range(wish.steps)
        ]
        self._prompt = painter.read(wish.read_prompt)
        self._negative = painter.read(wish.read_negative) if any(self.guided) else None
        self._step = 0
        shape = vision.latent_shape(wish.height, wish.width)
        noise = initial_noise(shape, [wish.seed]).to(painter.bridge.device)
        scheduler = make_scheduler(vision.scheduler, worth.sampler, vision.flow_shift(shape))
        self._sampling = sampling(scheduler, noise, wish.steps)
        self.noisy, self.t = next(self._sampling)
        self.latents: Float[Tensor, "1 channel h w"] | None = None
        """The finished latents."""
        self.attended = Attended(vision, shape) if wish.is_explained else None
        self._last: tuple[Tensor, Tensor, Tensor] | None = None

    @property
    def prompts(self) -> list[Read]:
        """What the denoiser hears in this step: the negative prompt, if it is guided, and the prompt."""
        return [*([self._negative] if self._negative and self.guided[self._step] else []), self._prompt]

    @property
    def is_finished(self) -> bool:
        """Whether every step is taken."""
        return self.latents is not None

    def rows(self) -> list[Row]:
        """What the denoiser is to be shown."""
        t = self.t.to(self.noisy.device).float()
        said = [self.painter.condition(read, t) for read in self.prompts]
        return [
            Row(
                noisy=self.noisy[0],
                t=t,
                tokens=each.tokens[0][each.mask[0]],
                pooled=None if each.pooled is None else each.pooled[0],
            )
            for each in said
        ]

    def take(self, predictions: Sequence[Float[Tensor, "channel h w"]]) -> None:
        """One step, by what the denoiser predicts for `rows`."""
        found = [each[None] for each in predictions]
        together = found[0] if len(found) == 1 else guide(found[0], found[1], self.wish.guidance)
        self._last = (self.noisy, self.t, together)
        self._step += 1
        try:
            self.noisy, self.t = self._sampling.send(together)
        except StopIteration as end:
            self.latents = end.value

    def preview(self) -> Image.Image:
        """The picture that the last prediction leads to, if it were the end."""
        assert self._last is not None  # a step is taken before
        vision = self.painter.bridge.vision
        noisy, t, prediction = self._last
        nearest = int((vision.times.float() - t.to(vision.times)).abs().argmin())
        alpha, sigma = vision.alphas[nearest : nearest + 1], vision.sigmas[nearest : nearest + 1]
        return self._decoded(predict_x0(vision.prediction_type, prediction, noisy, alpha, sigma))

    def picture(self) -> Image.Image:
        """The finished picture; NotDrawnError where its numbers are not finite."""
        assert self.latents is not None  # is_finished is asked before
        decoded = self.painter.bridge.vision.decode(self.latents)
        read = [self._prompt.row, *([self._negative.row] if self._negative else [])]
        reason = why_not(read, self.latents[0], decoded[0])
        if reason:
            raise NotDrawnError([self.wish.prompt], [None], {0: reason})
        return to_images(decoded)[0]

    def explain(self) -> dict[str, Any] | None:
        """Which words each region attended to; None where that was not asked for, or cannot be said."""
        if self.attended is None or not self.attended.is_known:
            return None
        painter, prompt = self.painter, self.wish.read_prompt.text
        if not painter.keeps_tokens:
            return self.attended.by_token()
        with painter.lock:
            spans = painter.bridge.language.spans(prompt)
        return self.attended.by_word(prompt, spans)

    def _decoded(self, latents: Float[Tensor, "1 channel h w"]) -> Image.Image:
        return to_images(self.painter.bridge.vision.decode(latents))[0]


@torch.inference_mode()
def advance(canvases: Sequence[Canvas]) -> None:
    """One step of every canvas; all are one painter's, of one shape and of one number format."""
    painter, device = canvases[0].painter, canvases[0].painter.bridge.device
    with torch.autocast(device.type, torch.bfloat16, enabled=canvases[0].is_rounded):
        _advance(canvases, painter)


def _advance(canvases: Sequence[Canvas], painter: Painter) -> None:
    if painter.bridge.connector.per_block:
        for canvas in canvases:
            with _watched([(canvas, len(canvas.prompts) - 1)]):
                predictions = _through_blocks(canvas)
            canvas.take(predictions)
        return
    groups = [canvases] if painter.least is not None else [[canvas] for canvas in canvases]
    for group in groups:
        rows = [canvas.rows() for canvas in group]
        flat = [row for each in rows for row in each]
        ends = list(accumulate(len(each) for each in rows))
        with _watched([(canvas, end - 1) for canvas, end in zip(group, ends, strict=True)]):
            predictions = predict_rows(painter.bridge.vision, flat, painter.width, painter.least or 1)
        for canvas, end in zip(group, ends, strict=True):
            canvas.take(predictions[end - len(canvas.prompts) : end])


def _through_blocks(canvas: Canvas) -> list[Float[Tensor, "channel h w"]]:
    """Predictions for a connector that speaks to single layers: it has to see the whole call."""
    painter = canvas.painter
    t = canvas.t.to(canvas.noisy.device).float().expand(len(canvas.prompts))
    together = gather([read.row for read in canvas.prompts])
    conditioning = painter.bridge.connector(together, t)
    noisy = canvas.noisy.expand(len(canvas.prompts), -1, -1, -1).contiguous()
    return list(painter.bridge.vision.predict(noisy, t, conditioning))


@contextmanager
def _watched(rows: Sequence[tuple[Canvas, int]]) -> Iterator[None]:
    """Note the attention of those canvases that ask for it; each with the place of its prompt's row."""
    with ExitStack() as stack:
        for canvas, row in rows:
            if canvas.attended is not None:
                tokens = canvas.rows()[-1].tokens
                stack.enter_context(canvas.attended.watching(row, len(tokens)))
        yield
