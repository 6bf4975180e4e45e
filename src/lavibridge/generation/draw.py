"""Pictures of many prompts in batches: each prompt is encoded once, and guidance is one batch of both halves.

texts --features (once)--> rows --pad, connector--> conditioning of [negative | prompts]
noise --sample(predict, guided)--> latents --decode--> pictures
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import count

import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from lavibridge.connectors.base import Connector
from lavibridge.core.contracts import TextFeatures
from lavibridge.diffusion.guidance import Interval, guide, is_guided
from lavibridge.generation.emphasis import Weighted, token_weights, weigh
from lavibridge.generation.finite import NotDrawnError, fault
from lavibridge.generation.quality import gains_by_bfloat16
from lavibridge.generation.sample import check_steps, initial_noise, make_scheduler, sample, to_images
from lavibridge.vision.base import VisionModel

Spans = Callable[[str], list[tuple[int, int]]]
"""A prompt -> the characters that each of its tokens stands for."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be drawn."""

    prompts: tuple[Weighted, ...]
    seeds: tuple[int, ...]
    shape: tuple[int, int, int]
    """Channels, height and width of the latents."""
    steps: int
    guidance: float
    guidance_interval: Interval
    bfloat16: bool
    """Whether the denoiser computes in it, where the device gains by that."""
    batch: int
    sampler: str
    negative_prompt: Weighted
    step_cache: float | None = None
    """How little a step may change for the denoiser to reuse the one before; None: every step is computed."""

    @property
    def texts(self) -> tuple[Weighted, ...]:
        """All that has to be read: the negative prompt too, where guidance needs it."""
        is_any_guided = any(self.is_guided(step) for step in range(self.steps))
        return (self.negative_prompt, *self.prompts) if is_any_guided else self.prompts

    def is_guided(self, step: int) -> bool:
        """Whether the step with this number, from 0, leads away from the negative prompt."""
        return is_guided(step, self.steps, self.guidance, self.guidance_interval)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One text's features without padding."""

    hidden: Float[Tensor, "layer token width"]
    pooled: Float[Tensor, " _"] | None
    context_free: Float[Tensor, "layer token width"] | None
    passthrough_tokens: Float[Tensor, "other context"] | None


@torch.no_grad()  # not inference_mode: in it, weights in parts (FSDP2) would be gathered for drawing only
def draw(
    order: Order,
    features: Callable[[Sequence[str]], TextFeatures],
    spans: Spans,
    connector: Connector,
    vision: VisionModel,
    device: torch.device,
    on_step: Callable[[int, int], None] | None = None,
    on_picture: Callable[[int, Image.Image], None] | None = None,
) -> list[Image.Image]:
    """Draw an order; ``on_step`` hears (steps done, all), ``on_picture`` (number, picture) batch by batch.

    NotDrawnError, with the other pictures, where some have numbers that are not finite.
    """
    check_steps(order.steps, len(vision.times))
    starts = range(0, len(order.prompts), order.batch)
    total, done = len(starts) * order.steps, 0

    def tick() -> None:
        nonlocal done
        done += 1
        if on_step is not None:
            on_step(done, total)

    rows = encode_once(order.texts, order.batch, features, spans)
    images: list[Image.Image | None] = []
    reasons: dict[int, str] = {}
    for start in starts:
        prompts = order.prompts[start : start + order.batch]
        noise = initial_noise(order.shape, order.seeds[start : start + order.batch]).to(device)
        latents = draw_latents(
            order, [rows[prompt] for prompt in prompts], rows, connector, vision, noise, tick
        )
        decoded = vision.decode(latents)
        read = [[rows[text] for text in {*order.texts[: -len(order.prompts)], prompt}] for prompt in prompts]
        for place, (own, latent, picture) in enumerate(zip(read, latents, decoded, strict=True), start=start):
            reasons[place] = why_not(own, latent, picture)
        for place, image in enumerate(to_images(decoded), start=start):
            images.append(None if reasons[place] else image)
            if on_picture is not None and not reasons[place]:
                on_picture(place, image)
    reasons = {place: reason for place, reason in reasons.items() if reason}
    if reasons:
        raise NotDrawnError([each.text for each in order.prompts], images, reasons)
    return [image for image in images if image is not None]


def why_not(
    rows: Iterable[Row], latents: Float[Tensor, "channel h w"], picture: Float[Tensor, "3 height width"]
) -> str:
    """Why there is no picture, of the rows that were read for it; empty where there is one."""
    features = [
        part for row in rows for part in (row.hidden, row.pooled, row.context_free, row.passthrough_tokens)
    ]
    return fault(
        {
            "the language model's features": features,
            "the latents that connector and denoiser lead to": (latents,),
            "the values that the autoencoder makes of the latents": (picture,),
        }
    )


def draw_latents(
    order: Order,
    prompts: Sequence[Row],
    rows: dict[Weighted, Row],
    connector: Connector,
    vision: VisionModel,
    noise: Float[Tensor, "batch channel h w"],
    tick: Callable[[], None],
) -> Float[Tensor, "batch channel h w"]:
    """The latents of one batch of prompts."""
    texts = {
        guided: gather([*[rows[order.negative_prompt] for _ in prompts if guided], *prompts])
        for guided in {order.is_guided(step) for step in range(order.steps)}
    }
    fixed = {guided: None if connector.time_aware else connector(each) for guided, each in texts.items()}
    steps = count()
    is_rounded = order.bfloat16 and gains_by_bfloat16(noise.device)
    rounded = torch.autocast(noise.device.type, torch.bfloat16, enabled=is_rounded)

    def predict(noisy: Tensor, t: Tensor) -> Tensor:
        guided = order.is_guided(next(steps))
        together = torch.cat([noisy, noisy]) if guided else noisy
        times = t.to(together.device).expand(len(together))
        conditioning = fixed[guided]
        if conditioning is None:
            conditioning = connector(texts[guided], times)
        with rounded:
            prediction = vision.predict(together, times, conditioning)
        if not guided:
            return prediction
        unconditional, conditional = prediction.chunk(2)
        return guide(unconditional, conditional, order.guidance)

    sampler = make_scheduler(vision.scheduler, order.sampler, vision.flow_shift(order.shape))
    with nullcontext() if order.step_cache is None else vision.reusing(order.step_cache):
        return sample(predict, sampler, noise, order.steps, tick)


def encode_once(
    prompts: Sequence[Weighted], batch: int, features: Callable[[Sequence[str]], TextFeatures], spans: Spans
) -> dict[Weighted, Row]:
    """Each different prompt's features, ``batch`` texts at a time."""
    emphasised = [prompt for prompt in dict.fromkeys(prompts) if not prompt.is_plain]
    texts = list(dict.fromkeys([*(each.text for each in prompts), *([""] if emphasised else [])]))
    rows: dict[str, Row] = {}
    for start in range(0, len(texts), batch):
        part = texts[start : start + batch]
        rows |= zip(part, _rows(features(part)), strict=True)
    found = {prompt: rows[prompt.text] for prompt in prompts}
    for prompt in emphasised:
        weights = token_weights(prompt, spans(prompt.text))
        row, empty = found[prompt], rows[""]
        found[prompt] = replace(
            row,
            hidden=weigh(row.hidden, empty.hidden, weights),
            context_free=None
            if row.context_free is None or empty.context_free is None
            else weigh(row.context_free, empty.context_free, weights),
        )
    return found


def _rows(made: TextFeatures) -> list[Row]:
    """A batch of features taken apart, without padding."""
    rows = []
    for index, real in enumerate(made.mask):
        beside, others = made.passthrough_tokens, made.passthrough_mask
        rows.append(
            Row(
                hidden=made.hidden[index][:, real],
                pooled=None if made.pooled is None else made.pooled[index],
                context_free=None if made.context_free is None else made.context_free[index][:, real],
                passthrough_tokens=None if beside is None or others is None else beside[index][others[index]],
            )
        )
    return rows


def gather(rows: Sequence[Row]) -> TextFeatures:
    """Rows as one batch, padded on the right with zeros that the mask hides."""
    hidden, mask = _padded([row.hidden for row in rows])
    pooled = [row.pooled for row in rows if row.pooled is not None]
    alone = [row.context_free for row in rows if row.context_free is not None]
    beside = [row.passthrough_tokens[None] for row in rows if row.passthrough_tokens is not None]
    others, others_mask = _padded(beside) if beside else (None, None)
    return TextFeatures(
        hidden=hidden,
        mask=mask,
        pooled=torch.stack(pooled) if pooled else None,
        context_free=_padded(alone)[0] if alone else None,
        passthrough_tokens=None if others is None else others[:, 0],
        passthrough_mask=others_mask,
    )


def _padded(
    rows: Sequence[Float[Tensor, "layer _ width"]],
) -> tuple[Float[Tensor, "batch layer token width"], Bool[Tensor, "batch token"]]:
    """Rows of different lengths as one tensor, and which of it is real."""
    longest = max(row.shape[1] for row in rows)
    together = rows[0].new_zeros(len(rows), len(rows[0]), longest, rows[0].shape[2])
    mask = torch.zeros(len(rows), longest, dtype=torch.bool, device=together.device)
    for index, row in enumerate(rows):
        together[index, :, : row.shape[1]] = row
        mask[index, : row.shape[1]] = True
    return together, mask
