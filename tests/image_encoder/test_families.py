"""Every family of image encoders keeps the contract: the same features alone and together, clear errors."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lavibridge.bridge.choices import model_of_choice
from lavibridge.core import registry
from lavibridge.core.contracts import ReadingSpec
from lavibridge.core.errors import ModelError
from lavibridge.image_encoder.base import ImageEncoder
from lavibridge.world.captions import evaluation_prompts
from lavibridge.world.drawing import draw_scene

KINDS = registry.kinds("image_encoder")


def toy(kind: str, **options: str) -> ImageEncoder:
    made: ImageEncoder = model_of_choice("image_encoder", {"kind": kind, "source": "random", **options})
    return made


def pictures(count: int) -> list[Image.Image]:
    return [Image.fromarray(draw_scene(each.scene)) for each in evaluation_prompts("two", count)]


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_picture_has_the_same_features_alone_and_together(kind: str) -> None:
    encoder, shown = toy(kind), pictures(3)
    reading = ReadingSpec(layers=(0, 1, -1))
    together = encoder.encode(shown, reading)
    assert together.hidden.shape[:2] == (3, 3)
    assert together.hidden.shape[2:] == (together.mask.shape[1], encoder.spec.width)
    assert together.mask.all()
    for row, picture in enumerate(shown):
        torch.testing.assert_close(encoder.encode([picture], reading).hidden[0], together.hidden[row])
    assert not torch.allclose(together.hidden[0], together.hidden[1])


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_every_size_and_mode_of_a_picture_is_read(kind: str) -> None:
    encoder, (picture, *_) = toy(kind), pictures(1)
    large = picture.resize((256, 256), Image.Resampling.NEAREST)
    wide = Image.fromarray(np.pad(np.asarray(picture), ((0, 0), (32, 32), (0, 0))))
    expected = encoder.encode([picture]).hidden
    for other in (large, wide, large.convert("RGBA")):
        found = encoder.encode([other]).hidden
        assert found.shape == expected.shape
        assert float((found - expected).norm() / expected.norm()) < 0.2


@pytest.mark.parametrize("kind", KINDS)
def test_what_it_cannot_give_is_refused(kind: str) -> None:
    encoder = toy(kind)
    with pytest.raises(ModelError, match=r"reads layer 9, but 'random' has layers 0 to \d"):
        encoder.encode(pictures(1), ReadingSpec(layers=(9,)))
    with pytest.raises(ModelError, match="neither queries nor context-free"):
        encoder.encode(pictures(1), ReadingSpec(context_free=True))


@pytest.mark.parametrize("kind", KINDS)
def test_the_meta_device_has_the_sizes_and_no_weights(kind: str) -> None:
    real = toy(kind)
    meta = model_of_choice("image_encoder", {"kind": kind, "source": "random"}, torch.device("meta"))
    assert meta.spec == real.spec
    assert all(each.is_meta for each in meta.parameters())


@torch.no_grad()
def test_the_shipped_clip_reads_what_its_own_model_reads() -> None:
    import transformers

    from lavibridge.core.paths import models_folder

    encoder = model_of_choice("image_encoder", "mini-clip")
    assert (encoder.spec.width, encoder.spec.layers, encoder.size) == (128, 4, 64)
    whole = transformers.CLIPModel.from_pretrained(models_folder() / "mini-clip", dtype=torch.float32)
    shown = pictures(2)
    pixels = torch.stack(
        [torch.from_numpy(np.array(each)).permute(2, 0, 1) / 127.5 - 1 for each in shown]
    ).float()
    pooled = encoder.encode(shown).hidden[:, 0, 0]  # CLIP pools its normed class token
    own = whole.vision_model(pixel_values=pixels).pooler_output
    torch.testing.assert_close(pooled, own, atol=1e-4, rtol=1e-4)


def test_another_model_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no image_encoder family accepts 'mini-llama'"):
        model_of_choice("image_encoder", "mini-llama")
    with pytest.raises(ModelError, match="'mini-bert' is no CLIP model"):
        model_of_choice("image_encoder", {"kind": "clip", "source": "mini-bert"})
