"""Meters the costs of an alignment (`training.align`): its steps, and both language models' reading.

It runs the recipe's own objective on the meta device, and so counts exactly the calls of the denoiser that
the objective makes, with or without gradients.
"""

from dataclasses import dataclass

import torch
from torch import nn

from lavibridge import lora
from lavibridge.alignment.base import AlignmentObjective, AlignmentSolver, NoisedLatents
from lavibridge.bridge import Bridge
from lavibridge.bridge.choices import model_of_choice
from lavibridge.core import registry
from lavibridge.core.contracts import TextFeatures
from lavibridge.language.base import CPU_TOKENS, GPU_TOKENS
from lavibridge.plan.meta_model import ModelPart, model_part
from lavibridge.plan.meta_values import MetaValues
from lavibridge.plan.metered_passes import (
    PassCost,
    caption,
    cost_of,
    feature_numbers,
    metering,
    number_format,
    run_backward,
    unknown_draw,
)
from lavibridge.plan.text_side_passes import encoder_parts
from lavibridge.recipes.recipe import Recipe
from lavibridge.recipes.training_section import ALIGNMENT, AlignmentSection
from lavibridge.training.alignment.objective import (
    AlignmentMethod,
    alignment_method,
    needs_vision_weights,
)
from lavibridge.training.alignment.teacher import SETTING, read_teacher
from lavibridge.training.objectives.native_encoder import native_bridge

TEACHER_CONNECTOR = "teacher's connector"
SOLVED_TOKENS = 8
"""Tokens per caption for metering the closed form, which handles tokens one by one in Python."""


@dataclass(frozen=True, kw_only=True)
class AlignmentCost:
    """The costs of an alignment, for one number of captions per step."""

    match: str
    """The objective's kind."""
    captions: int
    """In a step."""
    parts: tuple[ModelPart, ...]
    """The teacher's language model and connector."""
    is_denoiser_loaded: bool
    """Whether the vision model's weights are in memory."""
    readings: tuple[tuple[PassCost, int], ...]
    """The reading of a batch of captions and their number, for the language model and for the teacher's."""
    step: PassCost | None
    """Loss and gradient of a step; None for the closed form, which has no steps."""
    solving: PassCost | None
    """The closed form, if there is one. Its cost per caption is small compared with reading, and ignored."""
    collecting: PassCost | None
    """The objective prepares `images` noised latents before the first step, if it is used."""
    drawing: PassCost | None
    """The teacher's prediction for `images` noised latents, if they come from its own generation."""
    images: int
    kept: int
    """Bytes that the objective stores for all noised latents."""
    feature_bytes: tuple[int, int]
    """Bytes of a caption's float32 features, from the student's and from the teacher's language model."""
    can_unload: tuple[bool, bool]
    """Whether these models can leave memory before the first step, once all captions' features are cached."""

    @property
    def reading_peak(self) -> int:
        """Peak bytes, beyond weights and stored latents, until captions are read and latents collected."""
        passes = (*(cost for cost, _ in self.readings), self.collecting, self.drawing)
        return max(each.peak for each in passes if each is not None)

    @property
    def step_peak(self) -> int:
        """Peak bytes, beyond weights and stored latents, of the closed form and of a step."""
        return max(each.peak for each in (self.step, self.solving) if each is not None)


def alignment_cost(
    bridge: Bridge, recipe: Recipe, captions: int, tokens: int | None, type: str
) -> AlignmentCost | None:
    """Meter a recipe's alignment with ``captions`` per step; None without one. ``bridge`` is on meta."""
    settings = recipe.training.align
    if settings is None:
        return None
    method = alignment_method(recipe)
    draw = unknown_draw(bridge, recipe, min(recipe.training.batch, settings.noised_latents), tokens)
    latents, images = draw.batch.latents, len(draw.t)
    bridge.eval()
    with MetaValues(), lora.disable_adapters(bridge.language.backbone):
        teacher = _meta_teacher(bridge, settings)
        own, theirs = (_captions(each, tokens, captions) for each in (bridge, teacher))
        readings = tuple(_reading_cost(each, tokens, type) for each in (bridge, teacher))
        with torch.no_grad():
            features = bridge.features(own), teacher.features(theirs)
        drawing: PassCost | None = None
        collecting: PassCost | None = None
        step = solving = None
        kept = 0
        if method.uses_objective:
            prompts = tuple(theirs[:1] * images)
            noised = NoisedLatents(latents=latents, t=bridge.vision.times[draw.t], prompts=prompts)
            drawing, collecting, kept = _collecting_cost(bridge, teacher, method, noised, type)
            kept = kept * settings.noised_latents // images
        if method.takes_steps:
            step = _step_cost(bridge, teacher, method.objective, features, type, number_format(recipe))
        if method.solver is not None:
            solving = _solving_cost(bridge, teacher, method.solver, type)
        sizes = 4 * feature_numbers(bridge, tokens), 4 * feature_numbers(teacher, tokens)
    return AlignmentCost(
        match=registry.kind_of(ALIGNMENT, method.objective if method.takes_steps else method.solver),
        captions=captions,
        parts=_teacher_parts(teacher),
        is_denoiser_loaded=needs_vision_weights(recipe),
        readings=readings,
        step=step,
        solving=solving,
        collecting=collecting,
        drawing=drawing,
        images=images,
        kept=kept,
        feature_bytes=sizes,
        can_unload=(
            bridge.language.can_unload and bridge.connector.reading.queries is None,
            teacher.language.can_unload,
        ),
    )


def _reading_cost(bridge: Bridge, tokens: int | None, type: str) -> tuple[PassCost, int]:
    """A batch of `LanguageModel.encode_many`, and its number of captions."""
    limit = CPU_TOKENS if type == "cpu" else GPU_TOKENS
    length = bridge.language.sequence_lengths([caption(bridge, tokens)])[0]
    count = max(1, limit // length)
    with metering([bridge], [], type) as meter, torch.no_grad():
        bridge.features(_captions(bridge, tokens, count))
    return cost_of(meter), count


def _collecting_cost(
    bridge: Bridge, teacher: Bridge, method: AlignmentMethod, noised: NoisedLatents, type: str
) -> tuple[PassCost | None, PassCost, int]:
    """The teacher's prediction for noised latents, if it draws them; the objective's look; bytes it keeps."""
    objective, drawing = method.objective, None
    if method.samples_latents and objective.needs_latents:
        with metering([bridge, teacher], [noised.latents], type) as drawn, torch.no_grad():
            bridge.vision.predict(noised.latents, noised.t, teacher.condition(noised.prompts, noised.t))
        drawing = cost_of(drawn)
    with metering([bridge, teacher], [noised.latents, noised.t], type) as collecting:
        objective.prepare(bridge, teacher, [noised] if objective.needs_latents else [])
    return drawing, cost_of(collecting), collecting.live


def _step_cost(
    bridge: Bridge,
    teacher: Bridge,
    objective: AlignmentObjective,
    features: tuple[TextFeatures, TextFeatures],
    type: str,
    precision: torch.dtype | None,
) -> PassCost:
    weights = tuple(weight for weight in bridge.connector.parameters() if weight.requires_grad)
    known = [each for text in features for each in (text.hidden, text.pooled) if each is not None]
    known += [objective.t, *(each for each in vars(objective).values() if isinstance(each, torch.Tensor))]
    known += list(getattr(objective, "queries", {}).values())
    count = len(features[0].mask)
    chosen = objective.choose(count, torch.Generator().manual_seed(0)).to("meta")
    with metering([bridge, teacher], known, type, precision) as meter:
        with meter.during("alignment"):
            loss = objective.loss(bridge, teacher, *features, chosen)
        with meter.during("backward pass"):
            run_backward(loss, weights)
    return cost_of(meter)


def _solving_cost(bridge: Bridge, teacher: Bridge, solver: AlignmentSolver, type: str) -> PassCost:
    own, theirs = (_captions(each, SOLVED_TOKENS, 2) for each in (bridge, teacher))
    with torch.no_grad():
        batch = own, bridge.features(own), teacher.features(theirs)
    with metering([bridge, teacher], [], type) as meter, meter.during("closed form"):
        solver.fit(bridge, teacher, lambda: [batch])
    return cost_of(meter)


def _meta_teacher(bridge: Bridge, settings: AlignmentSection) -> Bridge:
    """Build the teacher of an alignment on the meta device."""
    if settings.teacher is None:
        return native_bridge(bridge, SETTING, settings.max_sequence_length)
    stored = read_teacher(settings.teacher, bridge.vision.config)
    meta = torch.device("meta")
    language = model_of_choice("language", stored.language, meta)
    with meta:
        return Bridge.compose(language, bridge.vision, stored.connector, stored.language_lora, None).eval()


def _teacher_parts(teacher: Bridge) -> tuple[ModelPart, ...]:
    encoders = teacher.language.backbone
    if isinstance(encoders, nn.ModuleDict):
        return encoder_parts(teacher)
    return (
        model_part("teacher's language model", teacher.language.parameters()),
        model_part(TEACHER_CONNECTOR, teacher.connector.parameters()),
    )


def _captions(bridge: Bridge, tokens: int | None, count: int) -> list[str]:
    return [caption(bridge, tokens)] * count
