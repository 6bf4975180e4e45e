"""`lavi cache`: what is filled ahead is all that training asks for, whoever fills it."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from lavibridge.bridge import Bridge
from lavibridge.cli.main import app
from lavibridge.core.errors import CacheError, RecipeError
from lavibridge.core.process_rank import SINGLE_PROCESS, ProcessRank
from lavibridge.data.base import Dataset
from lavibridge.recipes.recipe import Recipe, dump_recipe
from lavibridge.recipes.training_section import CacheSection
from lavibridge.training.cache.caches import feature_cache_folder, latent_cache_folder
from lavibridge.training.cache.precompute import PrecomputedFolder, precompute_features, precompute_latents
from lavibridge.training.train import train

SIZE = (16, 16)
Toy = Callable[..., Recipe]
Opened = Callable[..., Dataset]


def fill(
    bridge: Bridge, dataset: Dataset, recipe: Recipe, cache: CacheSection, share: ProcessRank
) -> tuple[PrecomputedFolder, PrecomputedFolder]:
    return (
        precompute_latents(bridge, dataset, recipe.training, cache, SIZE, share),
        precompute_features(bridge, dataset, recipe.training, cache, share),
    )


def test_two_that_fill_at_once_make_what_one_makes(
    toy: Toy, pictures: Path, opened: Opened, composed: Callable[..., Bridge], tmp_path: Path
) -> None:
    recipe, dataset, bridge = toy(), opened(pictures), composed()
    alone, shared = (CacheSection(folder=tmp_path / name) for name in ("alone", "shared"))
    latents, features = fill(bridge, dataset, recipe, alone, SINGLE_PROCESS)
    assert (latents.entries, features.entries) == (3, 5)  # equal pictures are one; five captions with ""
    with ThreadPoolExecutor() as pool:
        shares = [ProcessRank(rank=process, world_size=2) for process in range(2)]
        parts = list(pool.map(lambda share: fill(bridge, dataset, recipe, shared, share), shares))
    assert sum(part[1].computed for part in parts) == 5
    for store_of in (latent_cache_folder, feature_cache_folder):
        (one, _), (other, _) = store_of(bridge, alone), store_of(bridge, shared)
        assert len(one) == len(other) > 0
        for keys in one.keys.values():
            for key in keys:
                expected, found = one.get(key.tobytes()), other.get(key.tobytes())
                assert expected is not None
                assert found is not None
                assert expected.keys() == found.keys()
                for name in expected:
                    torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-6)
    again = fill(bridge, dataset, recipe, shared, SINGLE_PROCESS)
    assert [part.computed for part in again] == [0, 0]


def test_every_form_of_a_picture_is_filled(
    toy: Toy, pictures: Path, opened: Opened, composed: Callable[..., Bridge], tmp_path: Path
) -> None:
    dataset = opened(pictures, flip=True)
    cache = CacheSection(folder=tmp_path / "cache")
    filled = precompute_latents(composed(), dataset, toy().training, cache, SIZE, SINGLE_PROCESS)
    assert filled.entries == 5  # three pictures, of which the one with "left" in its caption stays as it is
    assert filled.bytes == sum(path.stat().st_size for path in filled.folder.iterdir())


def test_a_folder_that_cannot_be_written_to_stops_the_filling(
    toy: Toy, pictures: Path, opened: Opened, composed: Callable[..., Bridge], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    cache = CacheSection(folder=tmp_path / "file")
    with pytest.raises(CacheError, match=r"free some disk space, or set another training\.cache\.folder"):
        precompute_latents(composed(), opened(pictures), toy().training, cache, SIZE, SINGLE_PROCESS)


def test_training_reads_what_the_command_has_filled(
    toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = toy(
        lora={"language": None, "vision": {"rank": 4}},
        data={"scenes": 6},
        training={"cache": {"folder": tmp_path / "cache"}, "steps": 6},
    )
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(recipe))
    runner = CliRunner()
    done = runner.invoke(app, ["cache", str(path)], catch_exceptions=False)
    assert done.exit_code == 0
    assert "latents: 6 entries" in done.stderr
    assert "features: 7 entries" in done.stderr  # six captions and the empty prompt
    assert [Path(line).parent for line in done.stdout.splitlines()] == [tmp_path / "cache"] * 2
    before = sorted((tmp_path / "cache").rglob("*"))
    run = train(recipe, tmp_path / "run")
    assert sorted((tmp_path / "cache").rglob("*")) == before
    assert all(json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines())
    whole = runner.invoke(app, ["cache", "verify", str(tmp_path / "cache")], catch_exceptions=False)
    assert [line.split("\t")[:2] for line in whole.stdout.splitlines()] == [["whole", "7"], ["whole", "6"]]


def test_verify_fails_until_it_has_repaired(
    toy: Toy, pictures: Path, opened: Opened, composed: Callable[..., Bridge], tmp_path: Path
) -> None:
    cache = CacheSection(folder=tmp_path / "cache")
    filled = precompute_latents(composed(), opened(pictures), toy().training, cache, SIZE, SINGLE_PROCESS)
    [shard] = filled.folder.iterdir()
    shard.write_bytes(shard.read_bytes()[:-1])
    runner = CliRunner()
    with pytest.raises(CacheError, match=r"1 of 1 files in .* add --repair"):
        runner.invoke(app, ["cache", "verify", str(cache.folder)], catch_exceptions=False)
    done = runner.invoke(app, ["cache", "verify", str(cache.folder), "--repair"], catch_exceptions=False)
    assert done.exit_code == 0
    assert done.stdout.startswith("damaged\t0\t")
    assert not list(filled.folder.iterdir())


def test_a_recipe_without_a_folder_is_told_how_to_name_one(toy: Toy, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(toy()))
    with pytest.raises(RecipeError, match=r"training\.cache\.folder=FOLDER"):
        CliRunner().invoke(app, ["cache", "fill", str(path)], catch_exceptions=False)
