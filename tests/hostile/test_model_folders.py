"""A model's folder from a stranger names only safetensors inside it, and chooses no code."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from lavibridge.bridge.choices import model_of_choice
from lavibridge.core.errors import ModelError
from lavibridge.core.identity import source_identity
from lavibridge.core.model_folders import CODE_CHOICES, check_weight_indexes, without_code_choices
from lavibridge.core.paths import models_folder
from lavibridge.core.sources import locate_source, read_model_json
from lavibridge.evaluation.networks import PretrainedNetwork
from lavibridge.image_encoder.clip import ClipVision
from lavibridge.language.parts.loading import load_tokenizer
from lavibridge.vision.parts.loading import find_model_files, load_scheduler

INDEX = "model.safetensors.index.json"
PICKLED_INDEX = '{"weight_map": {"shared.weight": "w.bin"}}'


class Evil:
    """Unpickling it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A language model's folder."""
    return copied("mini-t5-small", tmp_path)


def copied(name: str, place: Path) -> Path:
    """A copy of a shipped model."""
    return Path(shutil.copytree(models_folder() / name, place / name))


def edit(file: Path, **changes: Any) -> None:
    """Change values of a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    "name",
    ["w.bin", "../w.safetensors", "/tmp/w.safetensors", "sub/w.safetensors", "a\\w.safetensors", "", 7],
)
@pytest.mark.parametrize("place", [".", "unet", "a/b"])
def test_an_index_names_plain_safetensors_only(tmp_path: Path, name: object, place: str) -> None:
    index = tmp_path / place / INDEX
    index.parent.mkdir(exist_ok=True, parents=True)
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "b": name}}))
    with pytest.raises(ModelError, match=r"plain names that end in \.safetensors"):
        locate_source(str(tmp_path))


def test_an_index_of_plain_names_passes(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model.fp16-2.safetensors"}}
    (tmp_path / INDEX).write_text(json.dumps(index))
    check_weight_indexes(tmp_path)


@pytest.mark.parametrize(
    "text", ["[]", "{}", "{", '{"weight_map": 3}', "[" * 100_000, '{"a": ' + "1" * 5000 + "}"]
)
def test_a_damaged_index_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / INDEX).write_text(text)
    with pytest.raises(ModelError, match=r"model\.safetensors\.index\.json"):
        check_weight_indexes(tmp_path)


def test_neither_the_identity_nor_a_loader_takes_a_hostile_folder(folder: Path) -> None:
    source_identity(str(folder))
    (folder / INDEX).write_text(PICKLED_INDEX)
    with pytest.raises(ModelError, match=r"w\.bin"):
        source_identity(str(folder))
    with pytest.raises(ModelError, match=r"w\.bin"):
        load_tokenizer(str(folder), "", None)


def test_every_shard_counts_in_the_identity(folder: Path) -> None:
    before = source_identity(str(folder))
    outside = folder.parent / "outside.safetensors"
    outside.write_bytes(b"first")
    (folder / "model-00001-of-00001.safetensors").symlink_to(outside)
    linked = source_identity(str(folder))
    outside.write_bytes(b"other")
    assert len({before, linked, source_identity(str(folder))}) == 3


def test_a_snapshot_of_the_hub_is_checked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = tmp_path / "models--owner--name"
    snapshot = repository / "snapshots" / ("0" * 40)
    shutil.copytree(models_folder() / "mini-t5-small", snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    model_of_choice("language", "owner/name")
    (snapshot / INDEX).write_text(PICKLED_INDEX)
    with pytest.raises(ModelError, match=r"w\.bin"):
        model_of_choice("language", "owner/name")


def test_pickles_beside_the_weights_are_never_read(folder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for name in ("pytorch_model.bin", "adapter_model.bin", "training_args.bin", "model.ckpt"):
        (folder / name).write_bytes(pickle.dumps(Evil(mark)))
    model_of_choice("language", str(folder))
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="pickles are not supported"):
        model_of_choice("language", str(folder))
    assert not mark.exists()


def test_an_adapter_in_the_folder_is_refused(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/else"}')
    with pytest.raises(ModelError, match=r"has an adapter_config\.json.*Merge it"):
        model_of_choice("language", str(folder))


VALUES = {"transformers_weights": "adapter_model.bin", "fusion_config": {"x": True}, "distributed_config": {}}


@pytest.mark.parametrize("key", sorted(CODE_CHOICES))
def test_a_language_model_chooses_no_code(folder: Path, key: str, tmp_path: Path) -> None:
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Evil(tmp_path / "mark")))
    expected = model_of_choice("language", str(folder)).encode(["a"]).hidden
    edit(folder / "config.json", **{key: VALUES.get(key, "org/kernel")})
    assert torch.equal(model_of_choice("language", str(folder)).encode(["a"]).hidden, expected)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("key", ["_attn_implementation", "attn_implementation", "transformers_weights"])
def test_no_other_model_of_transformers_chooses_code(tmp_path: Path, key: str) -> None:
    value = VALUES.get(key, "org/kernel")
    clip, pipeline = copied("mini-clip", tmp_path), copied("mini-sd", tmp_path)
    for part in ("text_config", "vision_config"):
        config = json.loads((clip / "config.json").read_text())
        edit(clip / "config.json", **{part: config[part] | {key: value}})
    edit(clip / "config.json", **{key: value})
    edit(pipeline / "text_encoder" / "config.json", **{key: value})
    PretrainedNetwork(str(clip), "CLIPModel").model  # noqa: B018 - loads it
    ClipVision(ClipVision.Config(source=str(clip)))
    model_of_choice("language", str(pipeline))


def test_a_configuration_loses_these_keys_at_every_level(folder: Path) -> None:
    deep = {"text_config": {"_attn_implementation": "org/kernel", "d_model": 3}}
    assert without_code_choices(deep) == {"text_config": {"d_model": 3}}
    edit(folder / "config.json", **deep)
    assert (read_model_json(str(folder), "config.json") or {})["text_config"] == {"d_model": 3}


def test_transformers_still_reads_what_is_left_out(folder: Path) -> None:
    """The list of keys is for this library: a key that it no longer reads can go."""
    edit(folder / "config.json", _attn_implementation="org/kernel")
    with pytest.raises((ImportError, ValueError, OSError)):
        transformers.T5EncoderModel.from_pretrained(folder)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_folders_own_code_never_runs(folder: Path, tmp_path: Path, file: str) -> None:
    mark = tmp_path / "mark"
    (folder / "own.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Own: pass\n")
    own = {"AutoConfig": "own.Own", "AutoModel": "own.Own", "AutoTokenizer": ["own.Own", "own.Own"]}
    edit(folder / file, auto_map=own)
    model_of_choice("language", str(folder))
    assert not mark.exists()


def test_a_pipelines_own_code_never_runs(tmp_path: Path) -> None:
    mark, pipeline = tmp_path / "mark", copied("mini-sd", tmp_path)
    for place in (pipeline, pipeline / "unet"):
        (place / "own.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Own: pass\n")
    edit(
        pipeline / "model_index.json", _class_name=["own", "Own"], custom_pipelines="own", unet=["own", "Own"]
    )
    model_of_choice("vision", str(pipeline))
    assert not mark.exists()


@pytest.mark.parametrize("name", ["DiffusionPipeline", "utils", "AutoencoderKL", "../x", 3, None])
def test_a_scheduler_is_a_scheduler(tmp_path: Path, name: object) -> None:
    pipeline = copied("mini-sd", tmp_path)
    edit(pipeline / "scheduler" / "scheduler_config.json", _class_name=name)
    vision = model_of_choice("vision", "mini-sd").config.model_copy(update={"source": str(pipeline)})
    with pytest.raises(ModelError, match="naming a scheduler"):
        load_scheduler(find_model_files(vision))
