"""Alignment: before the first step, the connector learns to be heard as the image model's own text encoder.

    captions --own encoder (frozen)------------------> tokens --\
                                                                 each cross-attention layer, same queries
    captions --language model (frozen)--> connector --> tokens --/

    loss = mean over layers of  E|heard - heard from the own encoder|^2 / Var[heard from the own encoder]

It is the share of what the layers hear that is missed: 1 for a connector that says the same to every caption.
Tokens of the two need not match in number or place, as only what attention makes of them counts. A step
passes neither through the denoiser nor back through the language model, and no noise hides what is to be
learnt, so that it teaches more in seconds than the diffusion loss does in minutes (LOG.md, 2026-11-21). What
the own encoder does not know is left to the training that follows.

Both text models are frozen meanwhile, so that each caption is read once; LoRA, which adds nothing yet, is
left out.

The queries are those of noised pictures under the own encoder, made once. To learn text features from the
encoder that they replace is Qin et al. 2023's (GlueGen, arXiv 2303.10056); to do it in the attention layers
is ours.
"""

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from time import perf_counter

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lavibridge import lora
from lavibridge.bridge import Bridge
from lavibridge.core.contracts import TextFeatures
from lavibridge.core.errors import ModelError, NotFiniteError
from lavibridge.core.log import JsonLog, progress
from lavibridge.data.base import Dataset
from lavibridge.diffusion.objective import corrupt
from lavibridge.optimizers.muon import Muon
from lavibridge.recipes.training import Alignment
from lavibridge.training.data.batches import Batches
from lavibridge.training.data.order import mix
from lavibridge.training.objectives.alignment_state import Unfinished
from lavibridge.training.objectives.native_encoder import own_encoder, reader

PICTURES = 256
"""How many noised pictures the queries come from."""
QUERIES = 48
"""Queries kept of each picture and layer."""
WARMUP = 20


@dataclass(frozen=True, kw_only=True)
class Queries:
    """What the denoiser's cross-attention layers ask about noised pictures."""

    by_layer: dict[str, Float[Tensor, "picture query _"]]
    t: Float[Tensor, " picture"]


def align(
    bridge: Bridge,
    dataset: Dataset,
    batches: Batches,
    settings: Alignment,
    log: JsonLog | None,
    seconds: float,
    reached: Unfinished,
) -> bool:
    """Train the connector from where it is to `settings.steps`, or until so many seconds are over.

    False where a signal has stopped it before; how far it is then is written down. ModelError where the image
    model's own text encoder or its cross-attention layers cannot be used.
    """
    bridge.eval()  # no dropout: the loop sets its own mode
    check_alignable(bridge)
    own = own_encoder(bridge, "training.align")
    read, read_own = reader(bridge), reader(own)
    weights = [weight for weight in bridge.connector.parameters() if weight.requires_grad]
    # AdamW took twice the steps to miss as little (LOG.md, 2026-11-22).
    optimizer = Muon(weights, settings.lr, weight_decay=0.0)
    reached.restore(bridge.connector, optimizer)
    with ExitStack() as during:
        for model in (bridge.language, bridge.vision):
            during.enter_context(lora.disable_adapters(model.backbone))
        queries = collect_queries(own, batches)
        begun = perf_counter() - reached.seconds
        bar = during.enter_context(progress("steps"))
        task = bar.add_task("aligning", total=settings.steps, completed=reached.step, status="")
        for step in range(reached.step, settings.steps):
            done = max(step / settings.steps, (perf_counter() - begun) / seconds)
            if reached.any_process(done >= 1):
                break
            if reached.stopped():
                reached.keep(bridge.connector, optimizer)
                return False
            captions = _captions(dataset, settings, batches.settings.seed, step)
            rate = settings.lr * min(1.0, (step + 1) / WARMUP) * (1 + math.cos(math.pi * done)) / 2
            for group in optimizer.param_groups:
                group["lr"] = rate
            chosen = torch.Generator().manual_seed(mix(batches.settings.seed, step))
            picked = torch.randint(len(queries.t), (len(captions),), generator=chosen)
            heard = with_noise(read(captions), settings.noise, chosen)
            loss = missed(bridge, own, heard, read_own(captions), queries, picked)
            gradients = torch.autograd.grad(loss, weights)  # LoRA learns nothing here
            value = float(loss.detach())
            if not math.isfinite(value):
                raise NotFiniteError(
                    f"alignment step {step + 1}: the loss is {value}; lower training.align.lr"
                )
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.grad = gradient
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            reached.pass_step(perf_counter() - begun, bridge.connector, optimizer)
            if log is not None:
                log.write({"step": step + 1, "missed": value, "lr": rate, "seconds": reached.seconds})
            bar.update(task, completed=step + 1, status=f"missed {value:.1%}")
    return True


def check_alignable(bridge: Bridge) -> None:
    """Raise ModelError for a connector or an image model that cannot be aligned."""
    if bridge.connector.per_block:
        raise ModelError(
            "training.align: this connector speaks to single blocks of the denoiser, its own encoder to none"
        )
    if not bridge.vision.spec.blocks:
        raise ModelError(
            "training.align speaks to cross-attention layers, and this image model has none (text and "
            "picture attend to each other jointly); leave training.align out"
        )
    if not any(True for _ in bridge.connector.parameters()):
        raise ModelError("training.align: this connector has no weights to align; leave training.align out")


@torch.no_grad()
def collect_queries(own: Bridge, batches: Batches) -> Queries:
    """Noise the run's first pictures and note what each layer asks while the denoiser looks at them."""
    vision = own.vision
    asked: dict[str, list[Tensor]] = {name: [] for name in vision.spec.blocks}
    times: list[Tensor] = []
    hooks = [
        vision.backbone.get_submodule(name).register_forward_pre_hook(_noting(noted), with_kwargs=True)
        for name, noted in asked.items()
    ]
    try:
        step = 0
        while sum(map(len, times)) < PICTURES:
            draw = batches.draw(step, 0)
            alpha, sigma, t = vision.alphas[draw.t], vision.sigmas[draw.t], vision.times[draw.t]
            noisy = corrupt(draw.batch.latents, draw.noise, alpha, sigma)
            vision.predict(noisy, t, own.condition(draw.batch.prompts))
            times.append(t)
            step += 1
    finally:
        for hook in hooks:
            hook.remove()
    return Queries(by_layer={name: torch.cat(noted) for name, noted in asked.items()}, t=torch.cat(times))


def with_noise(features: TextFeatures, noise: float, chosen: torch.Generator) -> TextFeatures:
    """Features in noise, each as large as `noise` times the feature's spread over real tokens.

    A decoder that has learnt through such noise reads neighbours alike: Nukrai et al. 2022 (CapDec), arXiv
    2211.00575.
    """
    if not noise:
        return features
    hidden = features.hidden
    spread = hidden.permute(0, 2, 1, 3)[features.mask].std(dim=0)[None, :, None]
    drawn = torch.randn(hidden.shape, generator=chosen).to(hidden)
    return replace(features, hidden=hidden + noise * spread * drawn)


def missed(
    bridge: Bridge,
    own: Bridge,
    features: TextFeatures,
    own_features: TextFeatures,
    queries: Queries,
    picked: Int[Tensor, " batch"],
) -> Float[Tensor, ""]:
    """The loss of captions as both sides read them, each asked the queries of one picked picture."""
    with torch.no_grad():
        wanted = own.connector(own_features)
    said = bridge.connector(features, queries.t[picked])
    shares = []
    for name, asked in queries.by_layer.items():
        with torch.no_grad():
            right = bridge.vision.attend(name, asked[picked], wanted)
        heard = bridge.vision.attend(name, asked[picked], said)
        variance = (right - right.mean(dim=(0, 1))).square().mean()
        shares.append((heard - right).square().mean() / variance)
    return torch.stack(shares).mean()


def _noting(noted: list[Tensor]) -> Callable[..., None]:
    """A hook that keeps some of a layer's queries, evenly spread over the picture."""

    def note(module: nn.Module, args: tuple[Tensor, ...], options: dict[str, Tensor]) -> None:
        asked = args[0] if args else options["hidden_states"]
        # Pictures of other shapes (data.buckets) have other numbers of places; as many are kept of each.
        count = noted[0].shape[1] if noted else min(QUERIES, asked.shape[1])
        places = torch.linspace(0, asked.shape[1] - 1, count).round().long()
        noted.append(asked[:, places])

    return note


def _captions(dataset: Dataset, settings: Alignment, seed: int, step: int) -> list[str]:
    """The captions of a step, the same ones every time."""
    chance = torch.Generator().manual_seed(mix(seed, step, 1))
    samples = [
        dataset.sample(index).captions
        for index in torch.randint(len(dataset), (settings.batch,), generator=chance).tolist()
    ]
    places = torch.rand(len(samples), generator=chance).tolist()
    return [texts[int(place * len(texts))] for texts, place in zip(samples, places, strict=True)]
