"""An image encoder's half knows its model, and its pictures draw alike alone and in a batch."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toy_pivot import CONFIG, LEARNING
from typer.testing import CliRunner

from lavibridge import BridgePipeline
from lavibridge.bridge.choices import model_of_choice
from lavibridge.cli.main import app
from lavibridge.connectors.pivot import LanguageHalf, Pivot
from lavibridge.core.errors import ModelError, RecipeError, RunError
from lavibridge.image_encoder.base import ImageEncoder
from lavibridge.pivot.folder import PivotFolder
from lavibridge.pivot.half import write_half
from lavibridge.pivot.image_reader import ImageReader

TOY = {"kind": "clip", "source": "random"}


@pytest.fixture
def pivot(pivot: PivotFolder) -> PivotFolder:
    """The pivot of toys, with an image encoder."""
    encoder = model_of_choice("image_encoder", TOY)
    config = Pivot.Config.model_validate(CONFIG)
    half = LanguageHalf(config, encoder.spec)
    write_half(pivot.place("image_encoder", "clip"), pivot.description.id, encoder, config, half, LEARNING)
    return pivot


def pictures() -> list[Image.Image]:
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(3)]


def test_a_pair_of_image_encoder_and_vision_model_draws_pictures(pivot: PivotFolder) -> None:
    for vision in ("sd", "sd3"):  # SD3 takes a pooled vector
        pipe = BridgePipeline.from_pivot(pivot.folder, None, vision, image_encoder="clip")
        options = {"num_inference_steps": 2, "guidance_scale": 3.0, "output_type": "pt"}
        together = pipe(pictures(), seed=[1, 2, 3], **options).images
        alone = pipe(pictures()[1], seed=2, **options).images
        torch.testing.assert_close(alone[0], together[1], atol=2e-5, rtol=1e-4)
        assert not torch.allclose(together[0], pipe(pictures()[1], seed=1, **options).images[0])
        changed = pipe(pictures()[1], "blurred", seed=2, **options).images
        assert not torch.allclose(changed, alone)  # a negative prompt in words
        assert pipe("a cat", seed=1, **options).images.shape == alone.shape


def test_the_conditioning_is_that_of_the_slots(pivot: PivotFolder) -> None:
    pipe = BridgePipeline.from_pivot(pivot.folder, "bert", "sd3", image_encoder=TOY)
    connector = pipe.bridge.connector
    assert isinstance(connector, Pivot)
    with torch.no_grad():
        features = pipe.bridge.features(["a red circle"])
        expected = connector(features)
        found = connector.condition_slots(connector.language_half.slots(features))
    assert torch.equal(found.tokens, expected.tokens)
    assert found.pooled is not None
    assert expected.pooled is not None
    assert torch.equal(found.pooled, expected.pooled)


def test_a_half_knows_its_image_encoder(pivot: PivotFolder, tmp_path: Path) -> None:
    same = ImageReader.from_pivot(pivot.folder, {**TOY, "dtype": "bfloat16"})
    assert next(same.encoder.backbone.parameters()).dtype == torch.bfloat16
    tuned = model_of_choice("image_encoder", TOY)
    assert isinstance(tuned, ImageEncoder)
    for weight in tuned.parameters():
        weight.add_(0.1 * weight.std() * torch.randn_like(weight))
    with pytest.raises(ModelError, match=r"'clip': its features of the pictures differ by .*%, more than 3%"):
        ImageReader.from_pivot(pivot.folder, tuned)
    with pytest.raises(
        RunError, match=r"no image_encoder half 'clap'; did you mean 'clip'.*add-image-encoder"
    ):
        ImageReader.from_pivot(pivot.folder, "clap")
    shutil.copytree(pivot.place("language", "bert"), pivot.place("image_encoder", "bert"))
    with pytest.raises(RunError, match="holds a language half: move it into"):
        ImageReader.from_pivot(pivot.folder, "bert")


def test_pictures_need_an_image_encoder_and_no_texts_beside_them(pivot: PivotFolder) -> None:
    pipe = BridgePipeline.from_pivot(pivot.folder, "bert", "sd")
    with pytest.raises(RecipeError, match="the pipeline has no image encoder"):
        pipe(pictures()[0])
    with pytest.raises(RecipeError, match="texts and pictures"):
        pipe([pictures()[0], "a cat"])


def test_generate_draws_the_pictures_of_image(pivot: PivotFolder, tmp_path: Path) -> None:
    scene = tmp_path / "my scene.png"
    pictures()[0].save(scene)
    out = tmp_path / "out"

    def run(*arguments: str) -> tuple[int, str]:
        told = ["generate", *arguments, "--out", str(out), "--steps", "2"]
        result = CliRunner().invoke(app, told)
        return result.exit_code, f"{result.output} {result.exception}"

    place = ("--pivot", str(pivot.folder))
    code, text = run("clip+sd", "--image", str(scene), *place, "--count", "2")
    assert code == 0, text
    files = sorted(out.glob("*.png"))
    assert [path.name for path in files] == ["0001-my-scene-seed0.png", "0002-my-scene-seed1.png"]
    with Image.open(files[0]) as drawn:
        assert drawn.text["image"] == scene.name, "a PNG tells no folder"  # type: ignore[attr-defined]
    assert "give one of these" in run("clip+sd", "a cat", "--image", str(scene), *place)[1]
    assert "give one of these" in run("clip+sd", *place)[1]
    assert "needs an image encoder and a vision model" in run("clip", "--image", str(scene))[1]
    (tmp_path / "torn.png").write_bytes(scene.read_bytes()[:90])
    assert "--image" in run("clip+sd", "--image", str(tmp_path / "torn.png"), *place)[1]
