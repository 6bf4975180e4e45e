"""The alignments of published pairs: their true sizes, and the table in the guide and among the results."""

from pathlib import Path

import pytest
from plan_alignments import CASES, HEAD, PAIRS, published_recipe, row

from lavibridge.plan.meta_model import build_meta_bridge, model_parts
from lavibridge.plan.text_side_passes import encoder_parts
from lavibridge.training.objectives.native_encoder import native_bridge

DOCS = Path(__file__).parents[2] / "docs"
SIZES = {
    "sdxl_aligned": {
        "language model": 596_049_920,
        "denoiser": 2_567_463_684,
        "own text_encoder": 123_060_480,
        "own text_encoder_2": 694_659_840,
    },
    "flux1_aligned": {
        "language model": 109_628_544,
        "denoiser": 11_901_408_320,
        "own text_encoder": 123_060_480,
        "own text_encoder_2": 4_762_310_656,
    },
}
"""Weights of the published files."""


@pytest.mark.parametrize("preset", SIZES)
def test_a_preset_has_the_published_numbers_of_weights(preset: str, tmp_path: Path) -> None:
    bridge = build_meta_bridge(published_recipe(preset, "tokens", (), tmp_path))
    parts = [*model_parts(bridge), *encoder_parts(native_bridge(bridge, "training.align"))]
    found = {part.name: part.frozen for part in parts}
    assert {name: found[name] for name in SIZES[preset]} == SIZES[preset]


@pytest.mark.parametrize("page", ["guides/align.md", "results.md"])
def test_the_table_has_every_case_and_one_that_fits_flux_in_24_gib(page: str) -> None:
    lines = (DOCS / page).read_text(encoding="utf-8").splitlines()
    begin = lines.index(HEAD[0])
    rows = lines[begin + 2 : begin + 2 + len(CASES)]
    for (preset, match, _), line in zip(CASES, rows, strict=True):
        assert line.startswith(f"| {PAIRS[preset].title} | `{match}` |")
    assert any("FLUX.1" in line and "| yes |" in line for line in rows)


def test_a_row_of_the_table_is_what_the_plan_says(tmp_path: Path) -> None:
    """The objective that fits FLUX.1 in 24 GiB."""
    case = next(case for case in CASES if case[:2] == ("flux1_aligned", "tokens"))
    made = row(*case, tmp_path)
    assert "| yes |" in made
    for page in ("guides/align.md", "results.md"):
        assert made in (DOCS / page).read_text(encoding="utf-8").splitlines()
