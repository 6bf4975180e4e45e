"""Weight files of strangers load or are refused by name; none runs code or fills memory beyond its size."""

import json
import pickle
import zipfile
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from lavibridge.bridge.lora_scale import read_lora_scale
from lavibridge.core.errors import LaviError, ModelError
from lavibridge.core.gguf_file import read_gguf_header
from lavibridge.core.safetensors_file import load_tensors
from lavibridge.core.weight_files import read_named_weights, read_weight_list

FUZZ = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def write_safetensors(path: Path, header: bytes, data: bytes = b"") -> Path:
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return path


@given(content=st.binary(max_size=200))
@FUZZ
def test_any_bytes_are_a_file_or_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"a\.safetensors"):
        load_tensors(path)
    gguf = tmp_path / "a.gguf"
    gguf.write_bytes(b"GGUF" + content)
    with pytest.raises(ModelError, match=r"a\.gguf"):
        read_gguf_header(gguf)


ENTRY: st.SearchStrategy[object] = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "BF16", "F8_E4M3", "X", 3, None]),
        "shape": st.lists(st.integers(-2, 2**62) | st.floats() | st.none(), max_size=4) | st.just({}),
        "data_offsets": st.lists(st.integers(-2, 2**62) | st.none(), max_size=3),
    },
)


@given(header=st.dictionaries(st.text(max_size=5), ENTRY | st.integers() | st.lists(st.integers())))
@FUZZ
def test_any_header_is_refused_in_one_line(tmp_path: Path, header: object) -> None:
    path = write_safetensors(tmp_path / "a.safetensors", json.dumps(header).encode())
    with suppress(ModelError):
        assert all(value.numel() == 0 for value in load_tensors(path).values())


@pytest.mark.parametrize(
    "text", [b"[" * 100_000, b'{"a": ' + b"1" * 5000 + b"}", b"[]", b"\xff\xff", b"null"]
)
def test_headers_that_are_no_object_are_refused(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(ModelError, match=r"a\.safetensors"):
        load_tensors(write_safetensors(tmp_path / "a.safetensors", text))


def test_a_lora_file_with_a_broken_header_is_refused(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "a.safetensors", b"{ ]")
    with pytest.raises(ModelError, match=r"a\.safetensors' is damaged"):
        read_lora_scale(path, "unet", is_peft=False)


class Evil:
    """Unpickling it leaves a mark."""

    def __init__(self, call: object, *arguments: object) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call, self.arguments


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A file of tensors as torch writes it."""
    torch.save(OrderedDict(a=torch.ones(3), b=torch.nn.Parameter(torch.zeros(2, 2))), tmp_path / "a.pt")
    return tmp_path / "a.pt"


def test_a_file_of_torch_is_read(archive: Path) -> None:
    assert read_named_weights(archive)["a"].tolist() == [1, 1, 1]
    torch.save([torch.ones(2)], archive)
    assert read_weight_list(archive)[0].tolist() == [1, 1]


def test_a_pickle_runs_no_code_and_allocates_nothing(archive: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for value in (Evil(Path.touch, mark), Evil(bytearray, 2**62), Evil(torch.zeros, 2**50)):
        torch.save({"a": value}, archive)
        with pytest.raises(ModelError, match="holds more than tensors"):
            read_named_weights(archive)
        archive.write_bytes(pickle.dumps({"a": value}))
        with pytest.raises(ModelError, match=r"no file of torch 1\.6 or newer"):
            read_named_weights(archive)
    assert not mark.exists()


def test_a_compressed_archive_is_refused(archive: Path, tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.pt"
    torch.save({"a": torch.zeros(2**22)}, archive)
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert bomb.stat().st_size < 2**17
    with pytest.raises(ModelError, match="is compressed"):
        read_named_weights(bomb)


def test_a_tensor_that_repeats_its_data_is_refused(archive: Path) -> None:
    torch.save({"a": torch.zeros(1).expand(2**40)}, archive)
    with pytest.raises(ModelError, match="larger than its data"):
        read_named_weights(archive)


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans())
@FUZZ
def test_a_damaged_archive_is_read_or_refused(tmp_path: Path, place: float, bit: int, cut: bool) -> None:
    path = tmp_path / "a.pt"
    torch.save(OrderedDict(a=torch.ones(3), b=torch.zeros(2, 2)), path)
    content = bytearray(path.read_bytes())
    at = int(place * len(content))
    content[at] ^= 1 << bit
    path.write_bytes(content[:at] if cut else content)
    with suppress(LaviError):
        read_named_weights(path)


def test_a_file_that_a_writer_saved_is_read(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    assert load_tensors(tmp_path / "a.safetensors")["a"].tolist() == [1, 1]
