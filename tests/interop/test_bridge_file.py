"""The single file of a bridge: it holds what the folder holds, and a damaged one is refused by name."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from toy_pivot import make_pivot

from lavibridge import Bridge, BridgePipeline, export, read_lora_file
from lavibridge.bridge import bridge_file, saved_bridge
from lavibridge.cli.main import app
from lavibridge.core.errors import LaviError, ModelError, RecipeError, RunError
from lavibridge.core.paths import models_folder
from lavibridge.interop.export import export_saved_bridge
from lavibridge.pivot import compose

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]
TOYS = {"language": {"kind": "t5", "source": "random"}, "vision": {"kind": "sd", "source": "random"}}
LORA = {"rank": 2, "dropout": 0.0}


def toy(connector: Any = "lavi", **options: Any) -> Bridge:
    """A bridge as if trained."""
    bridge = Bridge.compose(**(TOYS | options), connector=connector, language_lora=LORA, vision_lora=LORA)
    generator = torch.Generator().manual_seed(1)
    for values in bridge.trained_parameters().values():
        for value in values.values():
            value.data += 0.1 * torch.randn(value.shape, generator=generator)
    return bridge.eval()


@pytest.fixture(scope="module")
def bridge() -> Bridge:
    return toy()


@pytest.fixture(scope="module")
def file(bridge: Bridge, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(bridge, "bridge", tmp_path_factory.mktemp("bridge") / "toy.safetensors")


# ------------------------------------------------------------------------------------- what it brings back


def test_every_trained_weight_comes_back_bit_for_bit(bridge: Bridge, file: Path) -> None:
    again = Bridge.from_pretrained(file, "cpu")
    for part, expected in bridge.trained_parameters().items():
        found = again.trained_parameters()[part]
        assert found.keys() == expected.keys()
        assert expected
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert again.connector.config == bridge.connector.config
    assert again.language.config == bridge.language.config


def test_the_file_is_the_folder_and_the_same_bytes_each_time(
    bridge: Bridge, file: Path, tmp_path: Path
) -> None:
    assert export(bridge, "bridge", tmp_path / "again.safetensors").read_bytes() == file.read_bytes()
    bridge.save_pretrained(tmp_path / "folder")
    folder, single = (saved_bridge.read_saved_bridge(place) for place in (tmp_path / "folder", file))
    assert single.sha256 == folder.sha256 == saved_bridge.saved_bridge_hash(file)
    assert single.parts == folder.parts == ["connector", "language_lora", "vision_lora"]
    for part in folder.parts:
        expected, found = folder.tensors(part), single.tensors(part)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_lora_files_in_the_frozen_weights_and_distilled_guidance_come_along(tmp_path: Path) -> None:
    plain = toy()
    lora = export(toy(), "kohya", tmp_path / "lora") / "vision_lora.safetensors"
    read_lora_file(plain, lora)
    plain.distilled_guidance_scale = 4.0
    again = Bridge.from_pretrained(export(plain, "bridge", tmp_path / "b.safetensors"), "cpu")
    assert again.distilled_guidance_scale == 4.0
    assert [each.sha256 for each in again.vision.folded] == [each.sha256 for each in plain.vision.folded]
    (pairs,) = [each.pairs for each in again.vision.folded]
    expected = plain.vision.folded[0].pairs
    assert all(torch.equal(pairs[name][side], expected[name][side]) for name in expected for side in (0, 1))


def test_file_and_folder_generate_the_same_image(bridge: Bridge, file: Path, tmp_path: Path) -> None:
    bridge.save_pretrained(tmp_path / "folder")
    images = [
        BridgePipeline.from_pretrained(place, device="cpu")(
            "a red circle", num_inference_steps=2, seed=0
        ).images[0]
        for place in (tmp_path / "folder", file)
    ]
    assert np.array_equal(np.asarray(images[0]), np.asarray(images[1]))


def test_two_halves_of_a_pivot_become_one_file(tmp_path: Path) -> None:
    pivot = make_pivot(tmp_path / "pivot", "one")
    bridge = compose(pivot.folder, "llama", "sd3")
    call = ["export", "llama+sd3", "--pivot", str(pivot.folder), "--format", "bridge"]
    app([*call, "--out", str(tmp_path / "pair.safetensors")], standalone_mode=False)
    again = Bridge.from_pretrained(tmp_path / "pair.safetensors", "cpu")
    expected = bridge.connector.state_dict()
    found = again.connector.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_commands_open_the_file(
    bridge: Bridge, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["generate", str(file), "a red circle", "--steps", "1", "--out", str(tmp_path / "pictures")]
    app(call, standalone_mode=False)
    (printed,) = capsys.readouterr().out.split()
    assert Path(printed).is_file()
    bridge.save_pretrained(tmp_path / "run")
    call = ["export", str(tmp_path / "run"), "--format", "bridge"]
    app([*call, "--out", str(tmp_path / "one.safetensors")], standalone_mode=False)
    assert capsys.readouterr().out.strip() == str(tmp_path / "one.safetensors")
    assert (tmp_path / "one.safetensors").read_bytes() == file.read_bytes()
    with pytest.raises(RunError, match="a bridge already"):
        export_saved_bridge(file, tmp_path / "two.safetensors")
    with pytest.raises(RunError, match="exists already"):
        app([*call, "--out", str(tmp_path / "one.safetensors")], standalone_mode=False)
    with pytest.raises(RecipeError, match=r"end its name in \.safetensors"):
        app([*call, "--out", str(tmp_path / "one")], standalone_mode=False)


def test_the_file_says_what_the_denoiser_takes(file: Path) -> None:
    bridge = toy(vision={"kind": "sd", "source": "random"})
    found = bridge_file.read_bridge_file(file).models.denoiser
    assert found.spec == bridge.vision.spec
    assert found.network == "UNet2DConditionModel"
    assert found.flow_steps is None
    flow = bridge_file.DenoiserInterface.of(
        Bridge.compose(TOYS["language"], {"kind": "flux", "source": "random"}).vision
    )
    assert (flow.flow_steps, flow.takes_mask, flow.blocks) == (1000, False, {})


def test_models_by_their_place_are_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = models_folder() / "mini-t5-small"
    bridge = Bridge.compose(str(folder), TOYS["vision"], "linear", None, None)
    Bridge.from_pretrained(export(bridge, "bridge", tmp_path / "b.safetensors"), "cpu")
    said = " ".join(capsys.readouterr().err.split())
    assert "names the language model by its place on this machine" in said
    assert str(folder) in said.replace(" ", "")
    assert "vision model" not in said


def test_other_copies_of_the_models_take_their_place(file: Path, tmp_path: Path) -> None:
    """As on a machine where the models lie elsewhere."""
    bridge = Bridge.compose("mini-t5-small", TOYS["vision"], "linear", None, None)
    single = export(bridge, "bridge", tmp_path / "b.safetensors")
    away = rewritten(single, tmp_path / "away.safetensors", description(language={"source": "/no/where"}))
    with pytest.raises(ModelError, match="language=SOURCE"):
        Bridge.from_pretrained(away, "cpu")
    folder = models_folder() / "mini-t5-small"
    again = Bridge.from_pretrained(single, "cpu", language=folder, vision={"dtype": "bfloat16"})
    assert again.language.config.source == str(folder)
    assert again.language.config.max_tokens == bridge.language.config.max_tokens
    assert again.vision.config.dtype == "bfloat16"
    assert torch.equal(again.features(["a"]).hidden, bridge.features(["a"]).hidden)


def test_other_files_of_a_model_are_noted(
    bridge: Bridge, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bridge.save_pretrained(tmp_path / "folder")
    models = bridge_file.StoredModels(
        language="0" * 64, vision="random", denoiser=bridge_file.DenoiserInterface.of(bridge.vision)
    )
    bridge_file.pack_saved_bridge(tmp_path / "folder", tmp_path / "b.safetensors", models)
    Bridge.from_pretrained(tmp_path / "b.safetensors", "cpu")
    said = " ".join(capsys.readouterr().err.split())
    assert "files of the language model 'random' are not those" in said
    assert "vision model" not in said


# ----------------------------------------------------------------------------------------- what is refused


def refused(path: Path, match: str, error: type[LaviError] = LaviError) -> None:
    """Refused by the file's name, before a model loads."""
    for opened in (saved_bridge.read_saved_bridge, lambda place: Bridge.from_pretrained(place, "cpu")):
        with pytest.raises(error, match=match) as raised:
            opened(path)
        assert path.name in str(raised.value)


def rewritten(
    file: Path, out: Path, change: Callable[[dict[str, str], dict[str, Tensor]], None], honest: bool = True
) -> Path:
    """A copy with other metadata or tensors; an honest one has their hash."""
    with safe_open(file, framework="pt") as content:
        metadata = dict(content.metadata())
    tensors = load_file(file)
    change(metadata, tensors)
    if honest and "sha256" in metadata:
        metadata["sha256"] = bridge_file._content_hash(metadata, tensors)
    save_file(tensors, out, metadata)
    return out


def description(**changed: Any) -> Callable[[dict[str, str], dict[str, Tensor]], None]:
    def change(metadata: dict[str, str], tensors: dict[str, Tensor]) -> None:
        metadata["bridge.json"] = json.dumps(json.loads(metadata["bridge.json"]) | changed)

    return change


def entry(name: str, text: str) -> Callable[[dict[str, str], dict[str, Tensor]], None]:
    return lambda metadata, tensors: metadata.update({name: text})


def without(name: str) -> Callable[[dict[str, str], dict[str, Tensor]], None]:
    def change(metadata: dict[str, str], tensors: dict[str, Tensor]) -> None:
        metadata.pop(name, None)
        for key in [key for key in tensors if key.startswith(f"{name}/")]:
            del tensors[key]

    return change


def ruined(metadata: dict[str, str], tensors: dict[str, Tensor]) -> None:
    tensors[next(name for name in tensors if name.startswith("vision_lora/"))].view(-1)[0] = torch.nan


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (without("lavibridge_bridge"), "but no bridge"),
        (without("bridge.json"), r"metadata lacks bridge\.json"),
        (without("models.json"), r"metadata lacks models\.json"),
        (without("sha256"), "metadata lacks sha256"),
        (without("connector"), "lacks weights of 'connector'"),
        (without("vision_lora"), "lacks weights of 'vision_lora'"),
        (description(vision_lora=None), "holds weights of 'vision_lora'"),
        (
            description(folded={"vision": [{"name": "a", "sha256": "b", "strength": 1.0}]}),
            "lacks weights of 'vision_folded/0'",
        ),
        (description(folded={"vision": [3]}), "'folded' is missing or invalid"),
        (description(folded={"elsewhere": []}), "'folded' is missing or invalid"),
        (description(distilled_guidance_scale="4"), "'distilled_guidance_scale' is missing or invalid"),
        (description(language={}), "'language' is missing or invalid"),
        (description(vision={"source": "random", "kind": [1]}), "'vision' is missing or invalid"),
        (description(format=2), "has format 2"),
        (entry("lavibridge_bridge", "2"), "format '2' of bridges"),
        (entry("bridge.json", "{"), r"bridge\.json is not valid JSON"),
        (entry("bridge.json", "[]"), "is damaged, as its 'format' is missing"),
        (entry("bridge.json", "[" * 100_000), r"bridge\.json is not valid JSON"),
        (entry("bridge.json", '{"format": ' + "1" * 5000 + "}"), r"bridge\.json is not valid JSON"),
        (entry("models.json", "no"), r"models\.json is not valid JSON"),
        (entry("models.json", "[]"), r"models\.json is no mapping"),
        (entry("models.json", '{"language": "a"}'), r"models\.json\.vision: this required key is missing"),
        (ruined, "1 of .* values are not finite"),
    ],
)
def test_a_file_with_wrong_contents_is_refused(
    file: Path, tmp_path: Path, change: Callable[..., None], match: str
) -> None:
    refused(rewritten(file, tmp_path / "wrong.safetensors", change), match)


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"language": {"source": "random", "kind": "t5", "max_tokens": "x"}}, r"language\.max_tokens"),
        ({"language": {"source": "random", "kind": "none"}}, "unknown kind 'none'"),
        ({"vision": {"source": "/no/where"}}, "needs the vision model '/no/where', which cannot be opened"),
        ({"connector": {}}, r"connector\.kind: name one of"),
        ({"connector": {"kind": ["lavi"]}}, "'connector' is missing or invalid"),
        (
            {"connector": {"kind": "resampler", "latents": 10**12}},
            r"the connector's latents is 1,000,0.* no side above",
        ),
        ({"vision_lora": {"rank": -1}}, r"vision_lora\.rank"),
    ],
)
def test_settings_that_no_model_takes_are_refused(
    file: Path, tmp_path: Path, changed: dict[str, Any], match: str
) -> None:
    path = rewritten(file, tmp_path / "b.safetensors", description(**changed))
    with pytest.raises(LaviError, match=match):
        Bridge.from_pretrained(path, "cpu")


def test_a_wrong_hash_is_refused(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "changed.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    out.write_bytes(content)
    refused(out, "SHA-256 differs", RunError)
    refused(rewritten(file, out, entry("sha256", "0" * 64), honest=False), "SHA-256 differs", RunError)
    refused(rewritten(file, out, description(language={}), honest=False), "SHA-256 differs", RunError)

    def swapped(metadata: dict[str, str], tensors: dict[str, Tensor]) -> None:
        sides = [name for name in tensors if name.startswith("vision_lora/") and "lora_A" in name]
        shape = tensors[sides[0]].shape
        one, other = [name for name in sides if tensors[name].shape == shape][:2]
        tensors[one], tensors[other] = tensors[other], tensors[one]

    refused(rewritten(file, out, swapped, honest=False), "SHA-256 differs", RunError)


def test_a_pickle_by_another_name_is_refused_and_never_run(tmp_path: Path) -> None:
    flag = tmp_path / "ran"

    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.write_text, (flag, "ran"))

    path = tmp_path / "pickle.safetensors"
    path.write_bytes(pickle.dumps(Hostile()))
    refused(path, "not a safetensors file", ModelError)
    with pytest.raises(LaviError, match="not a safetensors file"):
        BridgePipeline.from_pretrained(path, device="cpu")
    assert not flag.exists()


def test_a_cut_file_and_a_huge_header_are_refused(file: Path, tmp_path: Path) -> None:
    whole, path = file.read_bytes(), tmp_path / "cut.safetensors"
    for length in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused(path, "incomplete|not a safetensors file", ModelError)
    text = json.dumps({"__metadata__": {"lavibridge_bridge": "1", "bridge.json": " " * 2**24}}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    refused(path, "its header has 16,", RunError)


def test_weights_of_another_shape_are_refused(file: Path, tmp_path: Path) -> None:
    def narrower(metadata: dict[str, str], tensors: dict[str, Tensor]) -> None:
        name = next(name for name in tensors if name.startswith("connector/") and tensors[name].ndim == 2)
        tensors[name] = tensors[name][:-1].clone()

    with pytest.raises(ModelError, match=r"does not fit: .*has shape"):
        Bridge.from_pretrained(rewritten(file, tmp_path / "b.safetensors", narrower), "cpu")


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(1, 255))
def test_no_changed_byte_passes(file: Path, tmp_path: Path, place: float, value: int) -> None:
    """Every byte counts, but for those that mean the same, such as the spaces behind the header."""
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] ^= value
    path = tmp_path / "changed.safetensors"
    path.write_bytes(content)
    message = ""
    try:
        assert saved_bridge.read_saved_bridge(path).sha256 == saved_bridge.saved_bridge_hash(file)
    except LaviError as error:
        message = str(error)
    assert not message or path.name in message
