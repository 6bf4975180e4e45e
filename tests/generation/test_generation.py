"""Sampling that a batch does not change, and pictures on disk."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lavibridge.connectors.lavi import LaviAdapter
from lavibridge.core import registry
from lavibridge.core.errors import RecipeError
from lavibridge.generation.draw import Order, draw_latents, encode_once, gather
from lavibridge.generation.sample import SAMPLERS, initial_noise, make_scheduler, sample, to_images
from lavibridge.generation.sheet import contact_sheet, save_png
from lavibridge.language.base import LanguageModel
from lavibridge.vision.base import VisionModel


@pytest.fixture(scope="module")
def vision() -> VisionModel:
    family = registry.load("vision", "sd")
    return family(family.Config(source="random"))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def language() -> LanguageModel:
    family = registry.load("language", "t5")
    return family(family.Config(source="random"))  # type: ignore[no-any-return]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_perfect_prediction_ends_at_the_clean_latents(sampler: str, vision: VisionModel) -> None:
    """With the true noise predicted at every step, each sampler walks back to x0."""
    x0 = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    noise = initial_noise((4, 8, 8), (1, 2))
    scheduler = make_scheduler(vision.scheduler, sampler)
    first = []

    def predict(xt: Tensor, t: Tensor) -> Tensor:
        first.append(int(t))
        return (xt - vision.alphas[t] * x0) / vision.sigmas[t]

    found = sample(predict, scheduler, noise, 10)
    assert first == sorted(first, reverse=True)
    assert len(first) == 10
    assert (found - x0).abs().max() < 0.05


def test_unknown_sampler(vision: VisionModel) -> None:
    with pytest.raises(RecipeError, match="did you mean 'unipc'"):
        make_scheduler(vision.scheduler, "unpic")


def test_noise_belongs_to_its_seed() -> None:
    both = initial_noise((4, 8, 8), (3, 4))
    assert torch.equal(both[1:], initial_noise((4, 8, 8), (4,)))
    assert not torch.equal(both[0], both[1])


def order(prompts: tuple[str, ...], **changes: object) -> Order:
    options: dict[str, object] = {
        "prompts": prompts,
        "seeds": tuple(range(len(prompts))),
        "shape": (4, 8, 8),
        "steps": 6,
        "guidance": 3.0,
        "batch": 8,
        "sampler": "unipc",
        "negative_prompt": "",
    }
    return Order(**(options | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_latents_are_the_same_alone_and_in_company(
    guidance: float, language: LanguageModel, vision: VisionModel
) -> None:
    adapter = LaviAdapter(LaviAdapter.Config(), language.spec, vision.spec).eval()
    prompts = ("a cat", "a much longer prompt with a boat in it", "two red houses")

    @torch.no_grad()
    def latents(chosen: list[int]) -> Tensor:
        wanted = order(tuple(prompts[index] for index in chosen), guidance=guidance)
        rows = encode_once(wanted, language.encode)
        noise = initial_noise(wanted.shape, chosen)
        texts = [rows[prompt] for prompt in wanted.prompts]
        return draw_latents(wanted, texts, rows, adapter, vision, noise, lambda: None)

    together = latents([0, 1, 2])
    for index in range(3):
        torch.testing.assert_close(latents([index])[0], together[index], atol=1e-4, rtol=1e-4)


def test_each_text_is_encoded_once(language: LanguageModel) -> None:
    asked: list[str] = []

    def features(texts: list[str]) -> object:
        asked.extend(texts)
        return language.encode(texts)

    rows = encode_once(order(("a", "b", "a", "c"), batch=2), features)  # type: ignore[arg-type]
    assert asked == ["", "a", "b", "c"]
    asked.clear()
    encode_once(order(("a", "a"), guidance=1.0), features)  # type: ignore[arg-type]
    assert asked == ["a"]
    assert set(rows) == {"", "a", "b", "c"}


def test_gathering_undoes_the_parting(language: LanguageModel) -> None:
    texts = ("a cat", "", "a longer one")
    rows = encode_once(order(texts, guidance=1.0, batch=1), language.encode)
    expected = language.encode(texts)
    found = gather([rows[text] for text in texts])
    assert torch.equal(found.mask, expected.mask)
    torch.testing.assert_close(found.hidden[:, 0][found.mask], expected.hidden[:, 0][expected.mask])


def test_images_are_rgb_of_eight_bits() -> None:
    values = torch.tensor([-3.0, -1.0, 0.0, 0.999, 1.0, 3.0])
    pictures = to_images(values.expand(2, 3, 1, 6))
    assert [picture.mode for picture in pictures] == ["RGB", "RGB"]
    levels = np.asarray(pictures[0])
    assert levels.dtype == np.uint8
    assert levels[0, :, 0].tolist() == [0, 0, 128, 255, 255, 255]


def test_png_keeps_its_text(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 4), (1, 2, 3))
    save_png(tmp_path / "deep" / "a.png", image, {"prompt": "a naïve cat — 猫", "seed": "3"})
    loaded = Image.open(tmp_path / "deep" / "a.png")
    assert loaded.tobytes() == image.tobytes()
    assert loaded.text == {"prompt": "a naïve cat — 猫", "seed": "3"}  # type: ignore[attr-defined]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.png"]


def test_contact_sheet_holds_every_picture() -> None:
    colours = [[(250, 0, 0), (0, 250, 0)], [(0, 0, 250), (250, 250, 0)]]
    grid = [[Image.new("RGB", (16, 16), colour) for colour in line] for line in colours]
    sheet = contact_sheet(grid, ["a red circle " * 20, "two"], ["untrained", "trained"], cell=64)
    counted = {colour: count for count, colour in sheet.getcolors(1 << 16)}
    for line in colours:
        for colour in line:
            assert counted[colour] == 64 * 64
    with pytest.raises(ValueError, match="2 rows by 1"):
        contact_sheet(grid, ["one", "two"], ["trained"])
