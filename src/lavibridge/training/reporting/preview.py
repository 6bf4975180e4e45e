"""Generates sample images during training with `BridgePipeline`, always from the same prompts and seed."""

from contextlib import nullcontext
from pathlib import Path

from lavibridge.data.base import Dataset
from lavibridge.generation.contact_sheet import contact_sheet
from lavibridge.generation.image_files import save_png
from lavibridge.generation.nonfinite_images import NonfiniteImageError
from lavibridge.generation.pipeline import BridgePipeline
from lavibridge.recipes.training_section import PreviewSection
from lavibridge.training.loop import TrainingState
from lavibridge.training.reporting.console import print_line

_FALLBACK = 4
"""Number of captions that serve as prompts if the recipe has none."""


def preview_prompts(settings: PreviewSection, dataset: Dataset) -> tuple[str, ...]:
    """The recipe's prompts, or else the first captions of the data."""
    if settings.prompts:
        return settings.prompts
    captions = [dataset.sample(index).captions[0] for index in range(min(_FALLBACK, len(dataset)))]
    return tuple(dict.fromkeys(caption for caption in captions if caption.strip()))


def draw_preview(
    state: TrainingState, settings: PreviewSection, prompts: tuple[str, ...], run: Path | None
) -> None:
    """Write `samples/step-N.png`, with one row per prompt; uses the averaged weights if there are any.

    Without a folder it generates but writes nothing: processes that shard the weights must generate together.
    """
    guidance = settings.guidance if state.bridge.distilled_guidance_scale is None else None
    with state.ema.applied() if state.ema is not None else nullcontext():
        try:
            images = BridgePipeline(state.bridge)(
                prompts,
                num_inference_steps=settings.steps,
                guidance_scale=guidance,
                seed=settings.seed,
            ).images
        except NonfiniteImageError as error:  # a failed preview must not end the run
            print_line(f"note: no preview at step {state.step}: {error}")
            return
    if run is None:
        return
    sheet = contact_sheet([[image] for image in images], prompts, [f"step {state.step}"])
    path = run / "samples" / f"step-{state.step}.png"
    save_png(path, sheet, {"description": f"step {state.step}, seed {settings.seed}: {'; '.join(prompts)}"})
