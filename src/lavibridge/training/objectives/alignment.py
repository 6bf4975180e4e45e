"""Alignment: before the first step, the connector learns to replace the vision model's own text encoder.

    captions --own encoder (frozen)------------------> tokens --\
                                                                 each cross-attention layer, same queries
    captions --language model (frozen)--> connector --> tokens --/

    loss = mean over layers of  E|output - own output|^2 / Var[own output]

The loss is the fraction of variance unexplained (fvu) of the layers' outputs: 0 if each layer produces the
output that it would produce with the own text encoder, 1 if the connector gives every caption the same mean
tokens. The two sets of tokens may differ in number and order, as only what attention makes of them counts. A
step passes neither through the denoiser nor back through the language model, and no noise hides the target,
so that it teaches more in seconds than the diffusion loss does in minutes (LOG.md, 2026-11-21). The training
that follows has to teach what the own encoder does not represent.

Both text models stay frozen, so each caption is read once; LoRA, which adds nothing yet, is disabled.

The queries are those of noised images under the own encoder, computed once. Qin et al. 2023 (GlueGen, arXiv
2303.10056) learn text features from the encoder that they replace; comparing the outputs of the attention
layers instead is our own.
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
from lavibridge.core import registry
from lavibridge.core.contracts import TextFeatures
from lavibridge.core.errors import ModelError, NotFiniteError
from lavibridge.core.log import JsonLog, progress_bar
from lavibridge.data.base import Dataset
from lavibridge.diffusion.objective import add_noise
from lavibridge.recipes.recipe import Recipe
from lavibridge.recipes.sections import kind_of_section, read_kind_section
from lavibridge.recipes.training_section import OPTIMIZERS, AlignmentSection, TrainingSection
from lavibridge.training.data.batches import BatchLoader
from lavibridge.training.data.order import mix_seeds
from lavibridge.training.loop import TrainingState, gradient_norms, update_weights
from lavibridge.training.objectives.alignment_progress import AlignmentProgress
from lavibridge.training.objectives.native_encoder import check_native_encoder, feature_reader, native_bridge
from lavibridge.training.optimization import half_cosine, linear_warmup, make_optimizer

SETTING = "training.align"
OPTIMIZER = read_kind_section(OPTIMIZERS, "muon")
"""AdamW takes twice the steps to the same loss (LOG.md, 2026-11-22)."""


@dataclass(frozen=True, kw_only=True)
class Queries:
    """The inputs of the denoiser's cross-attention layers for some noised images."""

    by_layer: dict[str, Float[Tensor, "image query _"]]
    t: Float[Tensor, " image"]


def check_alignable(recipe: Recipe) -> None:
    """Raise ModelError if the recipe's models or connector cannot be aligned; loads no weights."""
    if registry.load_kind("connectors", kind_of_section(recipe.connector)).per_block:
        raise ModelError(
            f"{SETTING} compares outputs of cross-attention layers for the connector's tokens, and the "
            f"connector '{kind_of_section(recipe.connector)}' changes single layers instead; leave {SETTING} "
            "out"
        )
    if registry.load_kind("vision", kind_of_section(recipe.vision)).joint_attention:
        raise ModelError(
            f"{SETTING} needs cross-attention layers, and vision models of kind "
            f"'{kind_of_section(recipe.vision)}' attend to text and image jointly; leave {SETTING} out"
        )
    check_native_encoder(recipe.vision, SETTING)


def align(
    bridge: Bridge,
    dataset: Dataset,
    batches: BatchLoader,
    training: TrainingSection,
    log: JsonLog | None,
    reached: AlignmentProgress,
) -> bool:
    """Train the connector from where it is to the last step of `training.align`, or until its time is up.

    Returns False if a signal stops it before; `reached` is saved then. Schedule, clipping and weight updates
    are those of the training loop. Raises ModelError if the vision model's own text encoder or the connector
    cannot be used, NotFiniteError if the loss is not finite.
    """
    settings = training.align
    assert settings is not None  # the caller asks for an alignment
    limit = math.inf if training.max_minutes is None else training.max_minutes * 60 * settings.max_time_share
    bridge.eval()  # no dropout: the loop sets its own mode
    state = alignment_state(bridge, settings)
    native = native_bridge(bridge, SETTING)
    read, read_native = (feature_reader(each, settings.feature_cache_gb) for each in (bridge, native))
    reached.restore(bridge.connector, state.optimizer)
    with ExitStack() as during:
        for model in (bridge.language, bridge.vision):
            during.enter_context(lora.disable_adapters(model.backbone))
        queries = collect_queries(native, batches, settings)
        begun = perf_counter() - reached.seconds
        bar = during.enter_context(progress_bar("steps"))
        task = bar.add_task("aligning", total=settings.steps, completed=reached.step, status="")
        for step in range(reached.step, settings.steps):
            done = max(step / settings.steps, (perf_counter() - begun) / limit)
            if reached.any_process(done >= 1):
                break
            if reached.stopped():
                reached.save(bridge.connector, state.optimizer)
                return False
            rate = settings.lr * linear_warmup(step, settings.warmup) * half_cosine(done)
            state.optimizer.param_groups[0]["lr"] = rate
            captions = _step_captions(dataset, settings, training.seed, step)
            generator = torch.Generator().manual_seed(mix_seeds(training.seed, step))
            images = torch.randint(len(queries.t), (len(captions),), generator=generator)
            features = with_noise(read(captions), settings.noise, generator)
            loss = fvu(bridge, native, features, read_native(captions), queries, images)
            norm = take_step(state, training, loss, step)
            reached.advance(perf_counter() - begun, bridge.connector, state.optimizer)
            record = {"step": step + 1, "fvu": float(loss.detach())}
            if log is not None:
                norms, rates = {"connector": norm}, {"connector": rate}
                log.write({**record, "gradient_norm": norms, "lr": rates, "seconds": reached.seconds})
            bar.update(task, completed=step + 1, status=f"fvu {record['fvu']:.3f}")
    return True


def take_step(state: TrainingState, training: TrainingSection, loss: Float[Tensor, ""], step: int) -> float:
    """Clip the gradient of a loss, update the connector, and return the gradient's norm."""
    value = float(loss.detach())
    if not math.isfinite(value):
        raise NotFiniteError(f"alignment step {step + 1}: the loss is {value}; lower {SETTING}.lr")
    weights = state.parts["connector"]
    gradients = torch.autograd.grad(loss, list(weights.values()))  # LoRA learns nothing here
    for weight, gradient in zip(weights.values(), gradients, strict=True):
        weight.grad = gradient
    norm = torch.linalg.vector_norm(gradient_norms(weights))
    update_weights(state, training, norm)
    return float(norm)


def alignment_state(bridge: Bridge, settings: AlignmentSection) -> TrainingState:
    """The connector's weights with their optimiser, at step 0."""
    connector = bridge.connector
    weights = {name: weight for name, weight in connector.named_parameters() if weight.requires_grad}
    if not weights:
        raise ModelError(f"{SETTING}: this connector has no weights to align; leave {SETTING} out")
    parts = {"connector": weights}
    optimizer = make_optimizer(parts, {"connector": settings.lr}, 0.0, OPTIMIZER)
    return TrainingState(bridge=bridge, model=bridge, parts=parts, optimizer=optimizer, ema=None)


@torch.no_grad()
def collect_queries(native: Bridge, batches: BatchLoader, settings: AlignmentSection) -> Queries:
    """Noise the run's first images and keep what enters each cross-attention layer."""
    vision = native.vision
    by_layer: dict[str, list[Tensor]] = {name: [] for name in vision.spec.blocks}
    times: list[Tensor] = []
    hooks = [
        vision.backbone.get_submodule(name).register_forward_pre_hook(
            _recorder(kept, settings.queries_per_image), with_kwargs=True
        )
        for name, kept in by_layer.items()
    ]
    try:
        step = 0
        while sum(map(len, times)) < settings.query_images:
            draw = batches.draw(step, 0)
            alpha, sigma, t = vision.alphas[draw.t], vision.sigmas[draw.t], vision.times[draw.t]
            noisy = add_noise(draw.batch.latents, draw.noise, alpha, sigma)
            vision.predict(noisy, t, native.condition(draw.batch.prompts))
            times.append(t)
            step += 1
    finally:
        for hook in hooks:
            hook.remove()
    return Queries(by_layer={name: torch.cat(kept) for name, kept in by_layer.items()}, t=torch.cat(times))


def _recorder(kept: list[Tensor], count: int) -> Callable[..., None]:
    """A pre-hook that keeps up to `count` of a layer's queries, evenly spread over the image."""

    def record(module: nn.Module, args: tuple[Tensor, ...], options: dict[str, Tensor]) -> None:
        queries = args[0] if args else options["hidden_states"]
        # Images of other shapes (data.buckets) have other numbers of queries; as many are kept of each.
        places = kept[0].shape[1] if kept else min(count, queries.shape[1])
        kept.append(queries[:, torch.linspace(0, queries.shape[1] - 1, places).round().long()])

    return record


def with_noise(features: TextFeatures, noise: float, generator: torch.Generator) -> TextFeatures:
    """Features plus normal noise, `noise` times the standard deviation of each feature over real tokens.

    A decoder trained with such noise treats neighbours alike: Nukrai et al. 2022 (CapDec), arXiv 2211.00575.
    """
    if not noise:
        return features
    hidden = features.hidden
    spread = hidden.permute(0, 2, 1, 3)[features.mask].std(dim=0)[None, :, None]
    drawn = torch.randn(hidden.shape, generator=generator).to(hidden)
    return replace(features, hidden=hidden + noise * spread * drawn)


def fvu(
    bridge: Bridge,
    native: Bridge,
    features: TextFeatures,
    native_features: TextFeatures,
    queries: Queries,
    images: Int[Tensor, " batch"],
) -> Float[Tensor, ""]:
    """The fraction of variance unexplained, averaged over the cross-attention layers.

    ``features`` and ``native_features`` are the two text models' features of the same captions; caption i
    meets the queries of image ``images[i]``.
    """
    with torch.no_grad():
        target_conditioning = native.connector(native_features)
    conditioning = bridge.connector(features, queries.t[images])
    fractions = []
    for name, of_images in queries.by_layer.items():
        with torch.no_grad():
            target = bridge.vision.layer_output(name, of_images[images], target_conditioning)
        output = bridge.vision.layer_output(name, of_images[images], conditioning)
        variance = (target - target.mean(dim=(0, 1))).square().mean()
        fractions.append((output - target).square().mean() / variance)
    return torch.stack(fractions).mean()


def _step_captions(dataset: Dataset, settings: AlignmentSection, seed: int, step: int) -> list[str]:
    """The captions of a step, a function of the seed and the step."""
    generator = torch.Generator().manual_seed(mix_seeds(seed, step, 1))
    samples = [
        dataset.sample(index).captions
        for index in torch.randint(len(dataset), (settings.batch,), generator=generator).tolist()
    ]
    places = torch.rand(len(samples), generator=generator).tolist()
    return [texts[int(place * len(texts))] for texts, place in zip(samples, places, strict=True)]
