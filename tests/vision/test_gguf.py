"""A denoiser from a GGUF file predicts what the weights in its blocks predict: toys that the test writes."""

import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from single_files import sd3_state, write_single_file
from toy_gguf import write_denoiser
from toy_pipelines import pipeline

from lavibridge import Bridge, BridgePipeline, export
from lavibridge.bridge.choices import model_of_choice
from lavibridge.core.contracts import Batch
from lavibridge.core.errors import ModelError
from lavibridge.core.identity import source_identity
from lavibridge.plan.meta_model import build_meta_bridge, model_parts
from lavibridge.plan.search import variants
from lavibridge.recipes.recipe import make_recipe

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::FutureWarning:diffusers"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]
CALL: dict[str, Any] = {"num_inference_steps": 2, "height": 32, "width": 32, "seed": 0, "output_type": "np"}
META = torch.device("meta")


@pytest.fixture(scope="module")
def pipe() -> Any:
    return pipeline("sd3")


@pytest.fixture(scope="module")
def folder(pipe: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pipeline's folder, from which a file takes configurations, autoencoder and text encoders."""
    place = tmp_path_factory.mktemp("sd3") / "folder"
    pipe.save_pretrained(place)
    return place


@pytest.fixture
def toy(pipe: Any, tmp_path: Path) -> Callable[..., Path]:
    def write(kind: Kind = Kind.Q8_0, architecture: str = "sd3", **metadata: Any) -> Path:
        state = sd3_state(pipe.transformer)
        return write_denoiser(state, tmp_path / "toy.gguf", architecture, kind, **metadata)

    return write


def picture(source: Any) -> np.ndarray[Any, Any]:
    pipe = BridgePipeline.native(source, device="cpu")
    return np.asarray(pipe(["a red circle", "a blue square"], **CALL).images)


@pytest.mark.parametrize(
    ("kind", "error"),
    [(Kind.F32, 1e-5), (Kind.BF16, 0.01), (Kind.Q8_0, 0.01), (Kind.Q5_1, 0.05), (Kind.Q4_0, 0.1)],
    ids=lambda each: each.name if isinstance(each, Kind) else "",
)
def test_a_file_draws_nearly_what_its_folder_draws(
    kind: Kind, error: float, toy: Callable[..., Path], folder: Path
) -> None:
    file = toy(kind)
    found, expected = picture({"source": file, "config": folder}), picture(folder)
    assert np.abs(found - expected).max() < error
    model: Any = model_of_choice("vision", {"source": file, "config": folder})
    packed = [each for each in model.backbone.modules() if type(each).__name__ == "GGUFLinear"]
    assert bool(packed) is (kind is not Kind.F32)
    numbers, size = gguf.GGML_QUANT_SIZES[kind]
    for layer in packed:
        assert layer.weight.nbytes == layer.in_features * layer.out_features // numbers * size
    names = {name for name, _ in model.backbone.named_parameters()}
    assert names == {name for name, _ in model_of_choice("vision", folder).backbone.named_parameters()}


def test_weights_are_exactly_those_in_the_blocks(toy: Callable[..., Path], folder: Path, pipe: Any) -> None:
    model: Any = model_of_choice("vision", {"source": toy(Kind.Q4_0), "config": folder})
    own = pipe.transformer.state_dict()
    layer = model.backbone.transformer_blocks[0].ff.net[2]
    x = torch.eye(layer.in_features)
    written = own["transformer_blocks.0.ff.net.2.weight"].numpy()
    stored = gguf.quants.dequantize(gguf.quants.quantize(written, Kind.Q4_0), Kind.Q4_0)
    with torch.no_grad():
        found = (layer(x) - layer.bias).T.numpy()
    np.testing.assert_allclose(found, stored, atol=0, rtol=1e-3)  # Diffusers scales in float16
    assert np.abs(stored - written).max() > 1e-4


def test_lora_trains_beside_a_file_and_is_found_again(
    toy: Callable[..., Path], folder: Path, tmp_path: Path
) -> None:
    vision = {"source": str(toy()), "config": str(folder)}
    bridge = Bridge.compose({"kind": "clip", "source": "random"}, vision, "mlp", None, {"rank": 2})
    batch = Batch(prompts=("a",), names=("1",), latents=torch.zeros(1, 16, 8, 8))
    bridge(batch, torch.tensor([1]), torch.ones(1, 16, 8, 8)).sum().backward()
    gradients = [each.grad for each in bridge.trained_parameters()["vision_lora"].values()]
    assert any(each is not None and bool(each.abs().max() > 0) for each in gradients)
    expected = np.asarray(BridgePipeline(bridge.eval())("a red circle", **CALL).images)
    bridge.save_pretrained(tmp_path / "bridge")
    loaded = BridgePipeline.from_pretrained(tmp_path / "bridge", device="cpu")
    assert not loaded.bridge.is_merged
    assert np.array_equal(np.asarray(loaded("a red circle", **CALL).images), expected)
    for doing, run in (
        ("merge LoRA into", loaded.bridge.merge),
        ("export", lambda: export(loaded.bridge, "diffusers", tmp_path / "out")),
    ):
        with pytest.raises(ModelError, match=f"cannot {doing} .* in the blocks of a GGUF file"):
            run()
    half = np.asarray(loaded.to(dtype="bfloat16")("a red circle", **CALL).images)
    assert 0 < np.abs(half - expected).max() < 0.1


def test_a_file_is_known_by_its_content_and_its_configuration(
    toy: Callable[..., Path], folder: Path, tmp_path: Path
) -> None:
    file = toy()
    first, named = source_identity(str(file)), source_identity(str(file), None, str(folder))
    assert first != named
    (tmp_path / "other").mkdir()
    moved = Path(shutil.copy(file, tmp_path / "other" / "renamed.gguf"))
    assert source_identity(str(moved), None, str(folder)) == named
    shutil.copytree(folder, moved.with_suffix(""))
    assert source_identity(str(moved)) == named
    assert picture(moved).shape == (2, 32, 32, 3)
    other: Any = model_of_choice("vision", {"source": file, "config": folder})
    assert model_of_choice("vision", moved).identity() == other.identity()
    with pytest.raises(ModelError, match=r"is a GGUF file, whose weights are quantised already"):
        model_of_choice("vision", {"source": moved, "quantize": "4bit"})


def test_a_plan_counts_the_blocks(toy: Callable[..., Path], folder: Path) -> None:
    file = toy(Kind.Q4_0)
    recipe = make_recipe(
        {
            "language": {"kind": "llama", "source": "random"},
            "vision": {"source": str(file), "config": str(folder)},
            "lora": {"language": None, "vision": None},
            "connector": "mlp",
            "data": {"kind": "world", "scenes": 4},
            "training": {"steps": 1},
        }
    )
    part = next(each for each in model_parts(build_meta_bridge(recipe)) if each.name == "denoiser")
    real: Any = model_of_choice("vision", {"source": file, "config": folder})
    held = sum(weight.nbytes for weight in real.backbone.state_dict().values())
    assert part.bytes == pytest.approx(held, rel=0.01)
    assert part.frozen > part.bytes / 4
    assert all("quantize" not in changes.get("vision", {}) for changes in variants(recipe))


def _patched(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def patch(whole: bytes) -> bytes:
        assert old in whole
        return whole.replace(old, new, 1)

    return patch


ARCHITECTURE = struct.pack("<Q", 20) + b"general.architecture"
NESTED = b"".join(struct.pack("<IQ", 9, 1) for _ in range(5000))
"""An array in an array, and so on."""
HOSTILE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "tail": (lambda whole: whole[:-40], r"is incomplete: it has \d+ of \d+ bytes"),
    "header": (lambda whole: whole[:300], "its header cannot be read"),
    "magic": (lambda whole: whole[:4], "its header cannot be read"),
    "empty": (lambda whole: b"", "is not a GGUF file"),
    "a zip": (lambda whole: b"PK\x03\x04" + whole[4:], "is not a GGUF file"),
    "noise": (lambda whole: whole[:24] + b"\xff" * 100 + whole[124:], "its header cannot be read"),
    "version": (lambda whole: whole[:4] + struct.pack("<I", 9) + whole[8:], "is GGUF of version 9"),
    "a bomb of tensors": (
        lambda whole: whole[:8] + struct.pack("<Q", 2**62) + whole[16:],
        "its header cannot be read",
    ),
    "a bomb of values": (
        lambda whole: whole[:16] + struct.pack("<Q", 2**62) + whole[24:],
        "its header cannot be read",
    ),
    "a long string": (
        _patched(ARCHITECTURE, struct.pack("<Q", 2**62) + ARCHITECTURE[8:]),
        "its header cannot be read",
    ),
    "nested arrays": (
        _patched(ARCHITECTURE + struct.pack("<I", 8), ARCHITECTURE + struct.pack("<I", 9) + NESTED),
        "its header cannot be read",
    ),
    "a name twice": (
        _patched(b"joint_blocks.0.x_block.mlp.fc1.bias", b"joint_blocks.0.x_block.mlp.fc2.bias"),
        "its header cannot be read",
    ),
    "another name": (
        _patched(b"joint_blocks.0.x_block.mlp.fc1.bias", b"joint_blocks.0.x_block.mlp.fc1.bios"),
        r"does not fit its configuration .*cannot convert it .*mlp\.fc1\.bias",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_damaged_or_hostile_file_is_refused(case: str, toy: Callable[..., Path], folder: Path) -> None:
    file, (damage, said) = toy(), HOSTILE[case]
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ModelError, match=said) as caught:
        model_of_choice("vision", {"source": file, "config": folder})
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"architecture": "llama"}, "holds the language model 'llama', no image model"),
        ({"architecture": "sdxl"}, r"is the U-Net 'sdxl', whose convolutions .*vision\.quantize"),
        ({"split__count": 3}, "is one of 3 parts of a model"),
        ({"general__alignment": 0}, "its header cannot be read"),
        ({"kind": Kind.Q8_1}, "has a quantization type: .*which is unsupported|cannot be"),
    ],
)
def test_what_is_not_read_is_named(
    metadata: dict[str, Any], said: str, toy: Callable[..., Path], folder: Path
) -> None:
    if metadata.get("kind") is Kind.Q8_1:
        file = toy()
        content = file.read_bytes()  # the format's number in the header stands for another
        file.write_bytes(content.replace(struct.pack("<I", Kind.Q8_0), struct.pack("<I", Kind.Q8_1)))
    else:
        file = toy(**metadata)
    with pytest.raises(ModelError, match=said) as caught:
        model_of_choice("vision", {"source": file, "config": folder})
    assert "\n" not in str(caught.value)


def test_a_file_without_a_known_configuration_is_told_to_name_one(
    toy: Callable[..., Path], folder: Path, tmp_path: Path
) -> None:
    file = toy()
    with pytest.raises(ModelError, match=r"holds none of the models .*set vision\.config"):
        model_of_choice("vision", str(file))
    link = tmp_path / "link.gguf"
    link.symlink_to(file)
    assert source_identity(str(link)) == source_identity(str(file))
    file.unlink()
    with pytest.raises(ModelError, match="no GGUF file"):
        model_of_choice("vision", str(link))
    with pytest.raises(ModelError, match="no GGUF file"):
        model_of_choice("vision", {"source": tmp_path / "gone.gguf", "config": folder})
    single = write_single_file(pipeline("sd3"), tmp_path / "renamed.gguf")
    with pytest.raises(ModelError, match="is not a GGUF file, though its name says so"):
        model_of_choice("vision", {"source": single, "config": folder}, META)
