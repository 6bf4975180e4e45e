"""What an alignment reads and loads: each caption once, the denoiser only if it is called."""

import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from toy_pipelines import pipeline

from lavibridge import Bridge
from lavibridge.core.contracts import LAST_LAYER, ReadingSpec, TextFeatures
from lavibridge.core.errors import ModelError
from lavibridge.language.base import LanguageModel
from lavibridge.recipes.recipe import Recipe
from lavibridge.training.start_checks import check_start
from lavibridge.training.train import train

Toy = Callable[..., Recipe]
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:diffusers")
NO_LORA = {"language": None, "vision": None}
SMALL = {"steps": 6, "batch": 8, "lr": 5e-3, "noised_latents": 8, "measure_every": 3}
CONNECTOR = "checkpoints/step-0/bridge/connector/model.safetensors"


def saved(name: str, folder: Path, without: Sequence[str] = ()) -> str:
    """A toy pipeline's folder, the weights in some sub-folders deleted."""
    pipeline(name).save_pretrained(folder)
    for part in without:
        for path in (folder / part).rglob("*.safetensors"):
            path.unlink()
    return str(folder)


def aligned(toy: Toy, source: str, connector: dict[str, Any], **sections: Any) -> Recipe:
    training = {"steps": 0, **sections.pop("training", {})}
    return toy(
        vision={"kind": "auto", "source": source},
        connector=connector,
        lora=NO_LORA,
        data={"size": 64, "scenes": 40},
        training=training,
        **sections,
    )


def logged(run: Path) -> list[float]:
    """The fvu of each step."""
    records = [json.loads(line) for line in (run / "align.jsonl").read_text().splitlines()]
    return [record["fvu"] for record in records if record["step"]]


@pytest.mark.parametrize(
    ("family", "latents", "length", "message"),
    [
        ("flux", 8, None, r"makes 8 tokens and .* makes 512: set connector\.latents=512"),
        ("flux", 8, 20, r"makes 8 tokens and .* makes 20: set connector\.latents=20"),
        ("sd3", 8, 20, r"makes 8 tokens and .* makes \d+: set"),
        ("sana", 8, None, "masks its padding"),
        ("flux", 512, None, None),
        ("flux", 20, 20, None),
    ],
)
def test_a_number_of_tokens_that_does_not_fit_is_refused_before_weights_load(
    toy: Toy, tmp_path: Path, family: str, latents: int, length: int | None, message: str | None
) -> None:
    source = saved(family, tmp_path / "model", [""])
    settings = {**SMALL, "match": "tokens", "max_sequence_length": length}
    recipe = aligned(toy, source, {"kind": "resampler", "latents": latents}, training={"align": settings})
    if message is None:
        check_start(recipe, tmp_path / "run")
        return
    with pytest.raises(ModelError, match=message):
        check_start(recipe, tmp_path / "run")


def test_a_bridge_that_cannot_teach_is_refused_before_weights_load(toy: Toy, tmp_path: Path) -> None:
    source = saved("sd", tmp_path / "model")
    teacher = Bridge.compose(
        {"kind": "llama", "source": "random"}, source, {"kind": "resampler", "latents": 6}, None, None
    )
    teacher.save_pretrained(tmp_path / "teacher")
    settings = {**SMALL, "match": "tokens", "teacher": str(tmp_path / "teacher")}
    recipe = aligned(toy, source, {"kind": "resampler", "latents": 5}, training={"align": settings})
    with pytest.raises(ModelError, match=r"makes 5 tokens and .* makes 6: set connector\.latents=6"):
        check_start(recipe, None)
    elsewhere = aligned(toy, "mini-sd", {"kind": "lavi"}, training={"align": {**settings, "match": None}})
    with pytest.raises(ModelError, match="choose a teacher with the same vision model"):
        check_start(elsewhere, None)


@pytest.mark.parametrize("kind", ["refiner", "translator"])
def test_a_connector_in_front_of_another_makes_its_number_of_tokens(
    kind: str, toy: Toy, tmp_path: Path
) -> None:
    source = saved("sd", tmp_path / "model")
    resampler = {"kind": "resampler", "latents": 6}
    teacher = Bridge.compose({"kind": "llama", "source": "random"}, source, resampler, None, None)
    teacher.save_pretrained(tmp_path / "teacher")
    settings = {**SMALL, "match": "tokens", "teacher": str(tmp_path / "teacher")}
    width = {"width": teacher.language.spec.width} if kind == "translator" else {}

    def check(then: dict[str, Any]) -> None:
        check_start(
            aligned(toy, source, {"kind": kind, "then": then, **width}, training={"align": settings}), None
        )

    check(resampler)
    with pytest.raises(ModelError, match=r"makes 5 tokens and .* makes 6: set connector\.then\.latents=6"):
        check({**resampler, "latents": 5})
    with pytest.raises(ModelError, match="a fixed number of tokens"):
        check({"kind": "lavi"})


@pytest.mark.parametrize(
    ("connector", "match", "held_out"),
    [
        ({"kind": "resampler", "latents": 512, "blocks": 1}, "tokens", 4),
        ({"kind": "lavi"}, "closed_form", 0),
    ],
)
def test_an_alignment_that_calls_no_denoiser_loads_none(
    toy: Toy, tmp_path: Path, connector: dict[str, Any], match: str, held_out: int
) -> None:
    """It learns the same as with the denoiser in memory, which a preview needs."""
    source = saved("flux", tmp_path / "model")
    training = {"align": {**SMALL, "match": match, "held_out": held_out}}
    drawing = {**training, "preview_every": 1}
    whole = train(aligned(toy, source, connector, training=drawing), tmp_path / "whole")
    for part in ("transformer", "vae"):
        for path in (tmp_path / "model" / part).glob("*.safetensors"):
            path.unlink()
    light = train(aligned(toy, source, connector, training=training), tmp_path / "light")
    one, other = (load_file(run / CONNECTOR) for run in (whole, light))
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_denoiser_that_is_called_is_loaded(toy: Toy, tmp_path: Path) -> None:
    source = saved("flux", tmp_path / "model", ["transformer"])
    recipe = aligned(toy, source, {"kind": "lavi"}, training={"align": {**SMALL, "match": "closed_form"}})
    with pytest.raises(ModelError, match="transformer"):
        train(recipe, tmp_path / "run")


def test_a_signal_ends_the_reading_and_later_starts_go_on_from_there(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `training.cache` both text sides' features are on disk, also for other runs."""
    read: list[tuple[str, str]] = []
    interrupt_at = 20
    encode_many = LanguageModel.encode_many

    def recorded(
        model: LanguageModel, prompts: Sequence[str], reading: ReadingSpec = LAST_LAYER
    ) -> Iterator[tuple[str, TextFeatures]]:
        for caption, features in encode_many(model, prompts, reading):
            read.append((type(model).__name__, caption))
            if len(read) == interrupt_at:
                os.kill(os.getpid(), signal.SIGINT)
            yield caption, features

    monkeypatch.setattr(LanguageModel, "encode_many", recorded)
    training = {"align": SMALL, "cache": {"folder": str(tmp_path / "cache")}}
    recipe = aligned(toy, "mini-sd", {"kind": "lavi"}, training=training)
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(recipe, run)
    first = list(read)
    assert interrupt_at <= len(first) < 30, "the reading of 40 captions by two models goes on"
    assert not (run / "checkpoints").exists()
    read.clear()
    interrupt_at = -1
    train(recipe, run, resume=True)
    assert (run / CONNECTOR).is_file()
    assert not set(first) & set(read), "what was read before the signal is read again"
    assert {model for model, _ in read} == {"Llama", "NativeText"}
    read.clear()
    train(recipe, tmp_path / "other")
    assert not read


@pytest.mark.parametrize("match", ["attention", pytest.param("blocks", marks=pytest.mark.slow)])
def test_a_step_computes_in_the_precision_of_the_recipe(toy: Toy, tmp_path: Path, match: str) -> None:
    """The fvu in bfloat16 is that in float32 within 2 %, and weights stay float32."""
    found = {}
    for precision in ("float32", "bfloat16"):
        training = {"precision": precision, "align": {**SMALL, "steps": 3, "match": match, "lr": 1e-4}}
        run = train(aligned(toy, "mini-sd", {"kind": "lavi"}, training=training), tmp_path / precision)
        found[precision] = logged(run)
        assert {value.dtype for value in load_file(run / CONNECTOR).values()} == {torch.float32}
    assert found["bfloat16"] != found["float32"]
    assert found["bfloat16"] == pytest.approx(found["float32"], rel=0.02)
