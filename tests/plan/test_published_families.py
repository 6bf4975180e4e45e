"""The published models that a vision family names have the published numbers of parameters in a plan."""

from pathlib import Path
from typing import Any

import pytest
from image_models import FAMILIES, HEAD, family_row, row
from published_configs import write_published

from lavibridge.core import registry
from lavibridge.plan.meta_model import build_meta_bridge, model_parts
from lavibridge.plan.text_side_passes import encoder_parts
from lavibridge.recipes.recipe import make_recipe
from lavibridge.training.objectives.native_encoder import native_bridge

MODELS = [
    (kind, name)
    for kind in registry.kinds("vision")
    for name in getattr(registry.load_kind("vision", kind), "published", {})
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), MODELS)
def test_a_published_model_has_its_number_of_parameters(kind: str, name: str, tmp_path: Path) -> None:
    family: Any = registry.load_kind("vision", kind)
    folder = write_published(family, name, tmp_path / "model")
    recipe = make_recipe(
        {
            "language": {"kind": "llama", "source": "random"},
            "vision": {"source": str(folder)},
            "connector": {"kind": "lavi"},
            "lora": {"language": None, "vision": {"rank": 4}},
            "data": {"kind": "world", "scenes": 8, "size": 64},
            "training": {"steps": 10, "batch": 2, **({"teacher": {"guidance": 1.0}} if family.text else {})},
        }
    )
    bridge = build_meta_bridge(recipe)
    parts = [*model_parts(bridge, None)]
    if family.text:
        parts += encoder_parts(native_bridge(bridge, "training.teacher"))
    found = {part.name: part.frozen for part in parts}
    names = {family.denoiser_folder: "denoiser"}
    for place, expected in family.published[name].parameters.items():
        assert found[names.get(place, f"own {place}")] == pytest.approx(expected, rel=1e-5), place
    assert bridge.vision.latent_shape(1024, 1024)


def test_the_results_list_every_published_model() -> None:
    lines = (Path(__file__).parents[2] / "docs" / "results.md").read_text(encoding="utf-8").splitlines()
    begin = lines.index(HEAD[0])
    assert lines[begin : begin + 2 + len(MODELS)] == [*HEAD, *(row(kind, name) for kind, name in MODELS)]
    assert not lines[begin + 2 + len(MODELS)]


def test_the_results_list_every_family() -> None:
    kinds = registry.kinds("vision")
    lines = (Path(__file__).parents[2] / "docs" / "results.md").read_text(encoding="utf-8").splitlines()
    begin = lines.index(FAMILIES[0])
    assert lines[begin : begin + 2 + len(kinds)] == [*FAMILIES, *map(family_row, kinds)]
    assert not lines[begin + 2 + len(kinds)]
