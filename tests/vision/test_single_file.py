"""A single-file checkpoint draws what the folder draws that it was made from: toys of Diffusers' classes."""

import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from single_files import DENOISER, single_file_state, write_single_file
from toy_pipelines import pipeline

from lavibridge import Bridge, BridgePipeline
from lavibridge.bridge.choices import model_of_choice, native_text_encoders
from lavibridge.core.errors import LaviError, ModelError
from lavibridge.core.files import shipped_configurations
from lavibridge.core.identity import source_identity
from lavibridge.core.paths import configurations_folder
from lavibridge.core.registry import kind_of
from lavibridge.recipes.sections import kind_of_section, read_section

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:diffusers")
CALL: dict[str, Any] = {"num_inference_steps": 2, "height": 32, "width": 32, "seed": 0, "output_type": "np"}
META = torch.device("meta")


def configurations(folder: Path, place: Path) -> Path:
    """Copy the folder of a pipeline without its weights."""
    shutil.copytree(folder, place, ignore=shutil.ignore_patterns("*.safetensors"))
    return place


@pytest.fixture(params=["sd", "sdxl", "sd3"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path, Path]:
    """The folder of a pipeline, its single file, and its configurations without weights."""
    pipe = pipeline(request.param)
    pipe.save_pretrained(tmp_path / "folder")
    file = write_single_file(pipe, tmp_path / "model.safetensors")
    return tmp_path / "folder", file, configurations(tmp_path / "folder", tmp_path / "configurations")


def picture(source: Any) -> np.ndarray[Any, Any]:
    pipe = BridgePipeline.native(source, device="cpu")
    return np.asarray(pipe(["a red circle", "a blue square"], **CALL).images)


def assert_same(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> None:
    """Equal but for rounding: kernels differ with the place of a weight in memory, which the file decides."""
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


def test_a_file_draws_what_its_folder_draws(model: tuple[Path, Path, Path]) -> None:
    folder, file, config = model
    named: Any = model_of_choice("vision", {"source": file, "config": config})
    whole: Any = model_of_choice("vision", folder)
    assert kind_of("vision", named) == kind_of("vision", whole)
    for part in ("backbone", "autoencoder"):
        ours, theirs = getattr(named, part).state_dict(), getattr(whole, part).state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert named.scheduler.config == whole.scheduler.config
    assert_same(picture({"source": file, "config": config}), picture(folder))


def test_a_folder_beside_the_file_is_its_configuration(model: tuple[Path, Path, Path]) -> None:
    folder, file, config = model
    config.rename(file.with_suffix(""))
    pipe = BridgePipeline.from_pretrained(file, device="cpu")
    assert_same(np.asarray(pipe(["a red circle", "a blue square"], **CALL).images), picture(folder))


def test_a_denoiser_alone_takes_the_rest_from_its_configuration(model: tuple[Path, Path, Path]) -> None:
    """Such files name the denoiser's tensors with or without the prefix of a whole checkpoint."""
    folder, file, config = model
    whole = load_file(file)
    for prefix in (DENOISER, ""):
        alone = {
            prefix + name.removeprefix(DENOISER): value.clone()
            for name, value in whole.items()
            if name.startswith(DENOISER)
        }
        file = file.with_name(f"alone{len(prefix)}.safetensors")  # the tensors of the other are mapped
        save_file(alone, file)
        assert_same(picture({"source": file, "config": folder}), picture(folder))
    with pytest.raises(ModelError, match=r"has no autoencoder, and neither .*set vision\.config to a folder"):
        model_of_choice("vision", {"source": file, "config": config})


def test_the_identity_is_that_of_the_file(model: tuple[Path, Path, Path], tmp_path: Path) -> None:
    _, file, config = model
    first = source_identity(str(file))
    named = source_identity(str(file), None, str(config))
    assert first != named, "the configuration decides what the file draws"
    (tmp_path / "other").mkdir()
    moved = Path(shutil.copy(file, tmp_path / "other" / "renamed.safetensors"))
    assert source_identity(str(moved)) == first
    assert source_identity(str(moved), None, str(config)) == named
    shutil.copytree(config, moved.with_suffix(""))
    assert source_identity(str(moved)) == named, "a folder beside the file counts as if it were named"
    choice = {"source": str(file), "config": str(config)}
    again = {"source": str(moved)}
    assert model_of_choice("vision", choice).identity() == model_of_choice("vision", again).identity()
    text = [BridgePipeline.native(each, device="cpu").bridge.language.identity() for each in (choice, again)]
    assert text[0] == text[1]
    (config / "scheduler" / "scheduler_config.json").write_text("{}")
    assert source_identity(str(file), None, str(config)) != named
    with open(moved, "r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\x7f")
    assert source_identity(str(moved), None, str(config)) != first


@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_a_bridge_into_a_file_is_saved_and_opened(name: str, tmp_path: Path) -> None:
    pipe = pipeline(name)
    pipe.save_pretrained(tmp_path / "folder")
    file = write_single_file(pipe, tmp_path / "model.safetensors")
    config = configurations(tmp_path / "folder", tmp_path / "configurations")
    section = {"source": str(file), "config": str(config)}
    assert kind_of_section(read_section("vision", section)) == name
    clip = {"kind": "clip", "source": "random"}
    bridge = Bridge.compose(clip, section, "lavi", None, "default")
    bridge.save_pretrained(tmp_path / "bridge")
    saved = json.loads((tmp_path / "bridge" / "bridge.json").read_text())["vision"]
    assert (saved["source"], saved["config"]) == (str(file), str(config))
    pictures = [
        BridgePipeline(each)("a red circle", **CALL).images
        for each in (bridge.eval(), Bridge.from_pretrained(tmp_path / "bridge", "cpu"))
    ]
    assert np.array_equal(*map(np.asarray, pictures))


@pytest.mark.parametrize(
    ("marks", "metadata", "expected"),
    [
        ((), {}, ("epsilon", False)),
        (("v_pred",), {}, ("v_prediction", False)),
        (("v_pred", "ztsnr"), {}, ("v_prediction", True)),
        ((), {"modelspec.prediction_type": "v"}, ("v_prediction", False)),
    ],
)
@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "EulerDiscreteScheduler", "PNDMScheduler"])
def test_a_file_states_its_schedule(
    scheduler: str,
    marks: tuple[str, ...],
    metadata: dict[str, str],
    expected: tuple[str, bool],
    tmp_path: Path,
) -> None:
    """With zero terminal SNR the last training step is pure noise."""
    made: Any = getattr(diffusers, scheduler)
    pipe = pipeline("sdxl", scheduler=made(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"))
    pipe.save_pretrained(tmp_path / "model")
    state = single_file_state(pipe) | {mark: torch.zeros(0) for mark in marks}
    save_file(state, tmp_path / "model.safetensors", metadata=metadata or None)
    model = model_of_choice("vision", tmp_path / "model.safetensors")
    prediction, is_zero = expected
    assert model.prediction_type == prediction
    assert bool(model.alphas[-1] < 1e-3) is is_zero
    pipe = BridgePipeline.native(tmp_path / "model.safetensors", device="cpu")
    assert np.isfinite(np.asarray(pipe("a red circle", **CALL).images)).all()


def test_weights_in_8_bits_open(tmp_path: Path) -> None:
    pipe = pipeline("sd")
    pipe.save_pretrained(tmp_path / "model")
    state = single_file_state(pipe)
    for name in [each for each in state if each.endswith("attn1.to_q.weight")]:
        scale = state[name].abs().max() / 448
        state[name] = (state[name] / scale).to(torch.float8_e4m3fn)
        state[name.replace(".weight", ".scale_weight")] = scale.reshape(1)
    save_file(state, tmp_path / "model.safetensors")
    model: Any = model_of_choice("vision", tmp_path / "model.safetensors")
    own = pipe.unet.state_dict()
    for name, value in model.backbone.state_dict().items():
        atol = 0.04 * float(own[name].abs().max()) if name.endswith("attn1.to_q.weight") else 0
        torch.testing.assert_close(value, own[name], rtol=0, atol=atol)


def published_pipeline(config: Path) -> Any:
    """A published pipeline at its true size, without weights."""
    index = json.loads((config / "model_index.json").read_text())
    parts: dict[str, Any] = {}
    for name in [each for each in index if (config / each / "config.json").is_file()]:
        settings = json.loads((config / name / "config.json").read_text())
        library, title = index[name]
        made: Any = getattr({"diffusers": diffusers, "transformers": transformers}[library], title)
        with META:
            is_theirs = library == "diffusers"
            parts[name] = made.from_config(settings) if is_theirs else made(made.config_class(**settings))
    return type(index["_class_name"], (), parts)()


def write_sparse(state: dict[str, torch.Tensor], file: Path) -> None:
    """Write a file of that layout whose weights are a hole: it takes no room."""
    header, place = {}, 0
    for name, value in state.items():
        size = 2 * value.numel()
        header[name] = {"dtype": "F16", "shape": list(value.shape), "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header).encode()
    with open(file, "wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        stream.truncate(8 + len(text) + place)


@pytest.mark.parametrize("name", shipped_configurations())
def test_published_files_are_recognised_at_true_size(name: str, tmp_path: Path) -> None:
    """Every name and shape of the converted file is that of the published configuration, in every part."""
    config = configurations_folder() / name
    file = tmp_path / "model.safetensors"
    write_sparse(single_file_state(published_pipeline(config)), file)
    choice: dict[str, Any] = {"source": str(file)}
    if name.startswith("sd2"):
        with pytest.raises(ModelError, match=r"does not state .*set vision\.config to sd2-base or sd2"):
            model_of_choice("vision", choice, META)
        choice["config"] = name
    found: Any = model_of_choice("vision", choice, META)
    assert Path(found.files.configuration).name == name
    assert (found.default_size, found.prediction_type) == {
        "sd1": (512, "epsilon"),
        "sd2": (768, "v_prediction"),
        "sd2-base": (512, "epsilon"),
        "sdxl": (1024, "epsilon"),
    }.get(name, (1024, "flow"))
    found.alphas = torch.zeros(1)  # asks for the encoders themselves, not for their sizes
    with pytest.raises(ModelError, match=r"has no tokenizers, .*set vision\.config to a folder .*tokenizer/"):
        native_text_encoders(found)


def test_a_misfit_is_named_before_weights_load(tmp_path: Path) -> None:
    pipe = pipeline("sd")
    pipe.save_pretrained(tmp_path / "model")
    file = write_single_file(pipe, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"does not fit its configuration 'sd1': .* set vision\.config"):
        model_of_choice("vision", {"source": file, "config": "sd1"})
    state = load_file(file)
    lost = next(name for name in state if name.endswith("attn2.to_k.weight"))
    less = tmp_path / "less.safetensors"
    save_file({name: value for name, value in state.items() if name != lost}, less)
    with pytest.raises(ModelError, match=r"does not fit .*: it lacks 1 of \d+ weights, among them .*attn2"):
        model_of_choice("vision", {"source": less, "config": tmp_path / "model"})
    with pytest.raises(ModelError, match=r"vision\.config is for a single file"):
        model_of_choice("vision", {"source": tmp_path / "model", "config": tmp_path / "model"})
    with pytest.raises(ModelError, match=r"is a safetensors file, and its .* is needed"):
        model_of_choice("language", file)
    with pytest.raises(LaviError, match="no safetensors file"):
        model_of_choice("vision", tmp_path / "absent.safetensors")


UNET: dict[str, tuple[int, ...]] = {
    f"{DENOISER}input_blocks.0.0.weight": (8, 4, 3, 3),
    f"{DENOISER}out.2.weight": (4, 8, 3, 3),
}
FLUX: dict[str, tuple[int, ...]] = {"img_in.weight": (16, 8), "final_layer.linear.weight": (8, 16)}


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ({"lora_unet_down_blocks_0.lora_down.weight": (4, 8)}, "is a LoRA .*read_lora_file"),
        ({"unet.mid.to_q.lora_A.weight": (4, 8)}, "is a LoRA"),
        ({"lora_unet_mid.hada_w1_a": (4, 8)}, "is a LoRA"),
        ({"control_model.input_blocks.0.0.weight": (8, 4, 3, 3)}, "is a ControlNet"),
        ({"controlnet_cond_embedding.conv_in.weight": (8, 3, 3, 3)}, "is a ControlNet"),
        ({"image_proj.proj.weight": (4, 4)}, "is an IP-Adapter"),
        ({"emb_params": (2, 8)}, "is a textual inversion"),
        ({"clip_l": (2, 8), "clip_g": (2, 8)}, "is a textual inversion"),
        ({"down_blocks.0.motion_modules.0.temporal_transformer.proj_in.weight": (4, 4)}, "is a video model"),
        (UNET | {f"{DENOISER}input_blocks.1.0.time_stack.in_layers.0.weight": (4,)}, "is a video model"),
        ({"patch_embedding.weight": (8, 16, 1, 2, 2)}, "is a video model .*shape"),
        ({"audio_vae.decoder.conv_in.weight": (4, 4)}, "is an audio model"),
        ({"pretransform.model.decoder.weight": (4, 4)}, "is an audio model"),
        ({"conditioner.embedders.0.model.text_projection": (4, 4), **UNET}, "is the refiner of SDXL"),
        ({"edm_mean": (1, 4, 1, 1), **UNET}, "schedule of EDM"),
        (
            {"down_blocks.0.resnets.0.conv1.weight": (4, 4, 3, 3)},
            "one part of a Diffusers folder.*the folder",
        ),
        (
            UNET | {f"{DENOISER}input_blocks.0.0.weight": (8, 9, 3, 3)},
            "an inpainting U-Net .9 input channels",
        ),
        (UNET | {f"{DENOISER}input_blocks.0.0.weight": (8, 8, 3, 3)}, "an image-editing model"),
        (UNET | {f"{DENOISER}input_blocks.0.0.weight": (8, 6, 3, 3)}, "6 input and 4 output channels"),
        (UNET | {f"{DENOISER}input_blocks.0.0.weight": (8,)}, "0 input and 4 output channels"),
        (FLUX | {"img_in.weight": (16, 12)}, "12 input and 8 output channels"),
        (FLUX | {"distilled_guidance_layer.in_proj.weight": (4, 4)}, "holds none of the models"),
        (FLUX | {"double_stream_modulation_img.lin.weight": (4, 4)}, "holds none of the models"),
        ({"first_stage_model.decoder.conv_in.weight": (8, 4, 3, 3)}, "holds an autoencoder and no denoiser"),
        ({"text_model.embeddings.token_embedding.weight": (8, 4)}, "holds none of the models"),
        ({}, "holds none of the models"),
        (UNET, "holds none of the models .*set vision.config"),
    ],
)
def test_what_is_no_text_to_image_model_is_named(
    shapes: dict[str, tuple[int, ...]], said: str, tmp_path: Path
) -> None:
    write_sparse(
        {name: torch.empty(shape, device="meta") for name, shape in shapes.items()},
        tmp_path / "m.safetensors",
    )
    with pytest.raises(ModelError, match=said) as caught:
        model_of_choice("vision", str(tmp_path / "m.safetensors"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["model.ckpt", "model.pt", "model.bin"])
def test_pickles_are_refused_unread(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(ModelError, match=r"is a pickle, .*is not read: take .*safetensors"):
        model_of_choice("vision", str(tmp_path / name))


def test_links_are_followed_and_dead_ones_named(tmp_path: Path) -> None:
    pipe = pipeline("sd")
    pipe.save_pretrained(tmp_path / "model")
    file = write_single_file(pipe, tmp_path / "weights.safetensors")
    link = tmp_path / "model.safetensors"
    link.symlink_to(file)
    assert source_identity(str(link)).partition(" ")[0] == source_identity(str(file))
    assert model_of_choice("vision", link)
    file.unlink()
    with pytest.raises(ModelError, match="no safetensors file"):
        model_of_choice("vision", link)
    link.unlink()
    link.symlink_to(link)
    with pytest.raises(ModelError, match="no safetensors file"):
        model_of_choice("vision", link)


@pytest.mark.slow
def test_flux_opens_at_its_true_width(tmp_path: Path) -> None:
    """The conversion fixes the width at 3072: one block of each kind, in bfloat16."""
    settings = json.loads((configurations_folder() / "flux1-dev" / "transformer" / "config.json").read_text())
    small = {
        **settings,
        "num_layers": 1,
        "num_single_layers": 1,
        "joint_attention_dim": 48,
        "pooled_projection_dim": 24,
    }
    net = diffusers.FluxTransformer2DModel.from_config(small).to(torch.bfloat16)
    pipe = pipeline("flux", transformer=net)
    pipe.save_pretrained(tmp_path / "folder")
    file = write_single_file(pipe, tmp_path / "model.safetensors")
    config = configurations(tmp_path / "folder", tmp_path / "configurations")
    options = {"dtype": "bfloat16"}
    ours = picture({"source": file, "config": config, **options})
    assert np.array_equal(ours, picture({"source": tmp_path / "folder", **options}))
