"""Writes the world's gallery: scenes, and vision models' images for their captions, marked right or wrong.

category -> prompts -> the true scene | model | model ...   with the exact checker's verdict
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from lavibridge.core.files import write_atomic
from lavibridge.core.log import progress_bar
from lavibridge.generation.pipeline import BridgePipeline
from lavibridge.report.page import page_environment
from lavibridge.world.captions import CaptionedScene, evaluation_prompts
from lavibridge.world.checker import CheckResult, check_picture
from lavibridge.world.drawing import draw_scene

_STEPS, _SEED = 20, 0


@dataclass(frozen=True, kw_only=True)
class GalleryImage:
    """An image of the page with the checker's verdict."""

    source: str
    """Data URI."""
    by: str
    right: bool
    reasons: tuple[str, ...]
    """The checker's objections; empty if the image is correct."""


@dataclass(frozen=True, kw_only=True)
class GalleryRow:
    """A caption, its scene, and each model's image."""

    caption: str
    images: tuple[GalleryImage, ...]


def write_gallery(
    models: Sequence[str], categories: Sequence[str], count: int, guidance: float, page: Path
) -> Path:
    """Generate `count` prompts of each category with each model, write the page and return its path."""
    pipes = {Path(model).name: BridgePipeline.from_pretrained(model) for model in models}
    sections = {}
    with progress_bar("pictures") as bar:
        total = count * len(categories) * max(len(pipes), 1)
        task = bar.add_task("generating the gallery", total=total, status="")
        for category in categories:
            pairs = evaluation_prompts(category, count)
            columns = [[_displayed("the scene", _draw_image(pair), pair) for pair in pairs]]
            for name, pipe in pipes.items():
                texts = [pair.caption for pair in pairs]
                scale = guidance if pipe.bridge.distilled_guidance_scale is None else None
                drawn = pipe(texts, num_inference_steps=_STEPS, guidance_scale=scale, seed=_SEED).images
                columns.append([_displayed(name, one, pair) for one, pair in zip(drawn, pairs, strict=True)])
                bar.advance(task, count)
            rows = zip(pairs, zip(*columns, strict=True), strict=True)
            sections[category] = [GalleryRow(caption=pair.caption, images=images) for pair, images in rows]
    write_atomic(page, _render(sections, tuple(pipes), guidance))
    return page


def _render(sections: dict[str, list[GalleryRow]], models: Sequence[str], guidance: float) -> str:
    """Render the page, with the number of correct images over each column."""
    tallies = {
        category: [
            (row[0].by, sum(one.right for one in row), len(row))
            for row in zip(*(each.images for each in rows), strict=True)
        ]
        for category, rows in sections.items()
    }
    settings = f"{_STEPS} steps, guidance {guidance:g}, seed {_SEED}"
    template = page_environment().get_template("gallery.html.j2")
    return template.render(sections=sections, tallies=tallies, models=models, settings=settings)


def _draw_image(pair: CaptionedScene) -> Image.Image:
    """Draw the scene of a pair."""
    return Image.fromarray(draw_scene(pair.scene))


def _displayed(by: str, picture: Image.Image, pair: CaptionedScene) -> GalleryImage:
    verdict = check_picture(picture, pair.spec)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    source = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return GalleryImage(source=source, by=by, right=verdict.all, reasons=_wrong(verdict))


def _wrong(verdict: CheckResult) -> tuple[str, ...]:
    """The reasons of the violated clauses."""
    return tuple(verdict.reasons[name] for name, kept in verdict.clauses.items() if not kept)
