"""Files that others wrote are checked by their header, before a tensor is read."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from lavibridge.core.errors import ModelError
from lavibridge.core.safetensors_file import (
    LARGEST_HEADER,
    check_number_types,
    meta_tensors,
    read_safetensors_header,
    read_tensors,
)

ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def raw(header: Any, data: bytes = b"\0" * 8) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def test_a_header_says_what_a_file_holds(tmp_path: Path) -> None:
    tensors = {
        "a": torch.arange(6.0).reshape(2, 3),
        "b.c": torch.zeros(0),
        "d": torch.ones((), dtype=torch.int64),
    }
    save_file(tensors, tmp_path / "m.safetensors", metadata={"who": "me"})
    header = read_safetensors_header(tmp_path / "m.safetensors")
    assert header.metadata == {"who": "me"}
    assert {name: (each.dtype, each.shape) for name, each in header.tensors.items()} == {
        "a": ("F32", (2, 3)),
        "b.c": ("F32", (0,)),
        "d": ("I64", ()),
    }
    read = read_tensors(header, ["a", "d"], torch.float32)
    assert read.keys() == {"a", "d"}
    assert torch.equal(read["a"], tensors["a"])
    assert read["d"].dtype == torch.int64
    assert meta_tensors(header, ["a"])["a"].shape == (2, 3)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not a safetensors file"),
        (b"\0" * 8, "is not a safetensors file"),
        (b"<!DOCTYPE html><html></html>", "is not a safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "pointer of git-lfs: .*git lfs pull"),
        ((LARGEST_HEADER + 1).to_bytes(8, "little") + b"{}", "is not a safetensors file"),
        ((2**64 - 1).to_bytes(8, "little") + b"{}", "is not a safetensors file"),
        ((5000).to_bytes(8, "little") + b"{}", "is incomplete: its header ends after the file"),
        (raw(b"[]"), "its header cannot be read"),
        (raw(b"{} {}"), "its header cannot be read"),
        (raw(b"\xff\xfe{}"), "its header cannot be read"),
        (raw(b"[" * 100_000), "its header cannot be read"),
        (raw({"a": 3}), "its header cannot be read"),
        (raw({"a": {**ENTRY, "shape": [-2]}}), "no whole number"),
        (raw({"a": {**ENTRY, "shape": [True, 2]}}), "no whole number"),
        (raw({"a": {**ENTRY, "shape": [2.0]}}), "no whole number"),
        (raw({"a": {**ENTRY, "data_offsets": [0]}}), "its header cannot be read"),
        (raw({"__metadata__": {"a": 1}}, b""), "metadata that is no text"),
        (raw(b'{"a": %b, "a": %b}' % ((json.dumps(ENTRY).encode(),) * 2)), "a name occurs twice"),
        (raw({"a": ENTRY, "b": ENTRY}), "the place of b in it is wrong"),
        (raw({"a": {**ENTRY, "data_offsets": [8, 16]}}, b"\0" * 16), "the place of a in it is wrong"),
        (raw({"a": {**ENTRY, "shape": [2**62, 2**62]}}), "the place of a in it is wrong"),
        (raw({"a": ENTRY}, b"\0" * 7), "is incomplete: its tensors need 8 bytes and it has 7"),
        (raw({"a": ENTRY}, b"\0" * 9), "is damaged: its tensors need 8 bytes and it has 9"),
        (raw({"a": {"dtype": "F4", "shape": [16], "data_offsets": [0, 8]}}), "a as F4, which is not read"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "m.safetensors"
    file.write_bytes(content)
    with pytest.raises(ModelError, match=said) as caught:
        read_safetensors_header(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


WHOLE = save({"a": torch.arange(4.0), "b": torch.ones(2, 2, dtype=torch.float16)})


@given(cut=st.integers(0, len(WHOLE) - 1))
def test_every_truncation_is_refused(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    file = tmp_path_factory.mktemp("cut") / "m.safetensors"
    file.write_bytes(WHOLE[:cut])
    with pytest.raises(ModelError):
        read_safetensors_header(file)


@given(place=st.integers(0, len(WHOLE) - 1), byte=st.integers(0, 255))
def test_a_changed_byte_never_raises_another_error(
    tmp_path_factory: pytest.TempPathFactory, place: int, byte: int
) -> None:
    file = tmp_path_factory.mktemp("changed") / "m.safetensors"
    file.write_bytes(WHOLE[:place] + bytes([byte]) + WHOLE[place + 1 :])
    try:
        header = read_safetensors_header(file)
        read_tensors(header, header.tensors, torch.float32)
    except ModelError:
        pass


def test_weights_in_8_bits_are_scaled(tmp_path: Path) -> None:
    full = torch.linspace(-3, 3, 64).reshape(8, 8)
    scale = full.abs().max() / 448
    stored = {
        "x.weight": (full / scale).to(torch.float8_e4m3fn),
        "x.scale_weight": scale.reshape(1),
        "x.scale_input": torch.ones(1),
        "y.weight": full.to(torch.float8_e5m2),
        "z.weight": full.half(),
        "scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn),
    }
    save_file(stored, tmp_path / "m.safetensors")
    header = read_safetensors_header(tmp_path / "m.safetensors")
    check_number_types(header)
    read = read_tensors(header, header.tensors, torch.bfloat16)
    assert read.keys() == {"x.weight", "y.weight", "z.weight"} == meta_tensors(header, header.tensors).keys()
    assert torch.equal(read["x.weight"], (stored["x.weight"].float() * scale).bfloat16())
    torch.testing.assert_close(read["x.weight"].float(), full, rtol=0.07, atol=0.02)
    assert torch.equal(read["y.weight"], stored["y.weight"].bfloat16())
    assert read["z.weight"].dtype == torch.float16, "only weights in 8 bits are converted here"


@pytest.mark.parametrize(
    "tensors",
    [
        {"x.weight": torch.zeros(8, 8, dtype=torch.uint8), "x.weight.absmax": torch.zeros(4)},
        {"x.weight": torch.zeros(8, 8, dtype=torch.int8), "x.weight_scale": torch.zeros(1)},
        {"x.weight": torch.zeros(8, 8, dtype=torch.float8_e4m3fn), "x.weight_scale": torch.zeros(8)},
    ],
    ids=["bitsandbytes", "int8", "one scale a row"],
)
def test_other_quantisation_is_refused(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file(tensors, tmp_path / "m.safetensors")
    with pytest.raises(ModelError, match=r"quantised weights that are not read \(x\.weight"):
        check_number_types(read_safetensors_header(tmp_path / "m.safetensors"))
