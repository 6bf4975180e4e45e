"""The resize rules: hand-made expectations, what torch and Pillow give, and that no two are alike."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from lavibridge.evaluation.sets.resize import ResizePixels, ResizeRule, resize

RULES: tuple[ResizeRule, ...] = ("clean", "legacy", "torch-fidelity", "square", "centre")


def checkerboard(height: int, width: int) -> ResizePixels:
    rows, columns = np.indices((height, width)) // 5
    return np.repeat((((rows + columns) % 2) * 255).astype(np.uint8)[:, :, None], 3, axis=2)


def test_every_rule_gives_another_picture() -> None:
    picture = checkerboard(64, 80)
    found = [resize(picture, 37, rule) for rule in RULES]
    for i, one in enumerate(found):
        assert one.shape == (37, 37, 3)
        assert one.dtype == np.float32
        for other in found[:i]:
            assert np.abs(one - other).max() > 0.2


def test_legacy_is_torchs_bilinear_without_antialiasing() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (21, 34, 3), dtype=np.uint8)
    tensor = torch.tensor(picture).permute(2, 0, 1)[None].float()
    for size in (16, 29, 50):
        theirs = functional.interpolate(tensor, size=(size, size), mode="bilinear", align_corners=False)
        assert resize(picture, size, "legacy") == pytest.approx(theirs[0].permute(1, 2, 0).numpy(), abs=1e-3)


def test_tensorflow_1_reads_at_corners() -> None:
    row = np.repeat(np.array([[0, 100, 200, 250]], dtype=np.uint8)[:, :, None], 3, axis=2)
    assert resize(row, 2, "torch-fidelity")[0, :, 0].tolist() == [0, 200]
    assert resize(row, 2, "legacy")[0, :, 0].tolist() == [50, 225]
    assert resize(row, 8, "torch-fidelity")[0, :, 0].tolist() == [0, 50, 100, 150, 200, 225, 250, 250]


def test_clean_is_pillows_bicubic_on_floats_and_is_not_rounded() -> None:
    picture = checkerboard(40, 40)
    channel = Image.fromarray(picture[:, :, 0].astype(np.float32)).resize((23, 23), Image.Resampling.BICUBIC)
    found = resize(picture, 23, "clean")
    assert np.array_equal(found[:, :, 0], np.asarray(channel).clip(0, 255))
    assert (found != np.round(found)).any()
    assert (resize(picture, 23, "square") == np.round(resize(picture, 23, "square"))).all()


def test_centre_cuts_the_middle_and_square_squashes() -> None:
    picture = np.zeros((10, 30, 3), dtype=np.uint8)
    picture[:, 10:20] = 255
    assert (resize(picture, 10, "centre") == 255).all()
    assert (resize(picture, 10, "square")[:, 0] == 0).all()


def test_a_constant_picture_stays_constant_under_every_rule() -> None:
    picture = np.full((17, 31, 3), 77, dtype=np.uint8)
    for rule in RULES:
        assert resize(picture, 24, rule) == pytest.approx(77, abs=1e-3)
