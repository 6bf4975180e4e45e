"""A shard gives back what was put in, bit for bit, and nothing else, whatever happens to the file."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lavibridge.core.errors import CacheError
from lavibridge.training.cache.shard import KEY_BYTES, Entry, Shard, write_shard

DTYPES = st.sampled_from([torch.float32, torch.bfloat16])


def entries(count: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> dict[bytes, Entry]:
    generator = torch.Generator().manual_seed(seed)
    return {
        bytes(torch.randint(256, (KEY_BYTES,), generator=generator).tolist()): {
            "hidden": torch.randn(2, row % 5, 3, generator=generator).to(dtype),
            "pooled": torch.randn(4, generator=generator).to(dtype),
        }
        for row in range(count)
    }


def same(first: Entry, second: Entry) -> bool:
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype and torch.equal(first[name], second[name]) for name in first
    )


@given(count=st.integers(1, 40), dtype=DTYPES, seed=st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_what_is_read_is_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, count: int, dtype: torch.dtype, seed: int
) -> None:
    path = tmp_path_factory.mktemp("shard") / "a.safetensors"
    wanted = entries(count, dtype, seed)
    write_shard(path, wanted)
    shard = Shard(path)
    keys = [key.tobytes() for key in shard.keys]
    assert keys == sorted(wanted)
    assert all(same(shard.read(row), wanted[key]) for row, key in enumerate(keys))


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_bit_that_turns_is_never_read(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("shard") / "a.safetensors"
    wanted = entries(6)
    write_shard(path, wanted)
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    try:
        found = dict(Shard(path).whole())
    except CacheError:
        return
    assert found.keys() == wanted.keys()
    assert all(entry is None or same(entry, wanted[key]) for key, entry in found.items())
    header = int.from_bytes(path.read_bytes()[:8], "little") + 8
    assert place < header or sum(entry is None for entry in found.values()) == 1


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_shortened_file_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.safetensors"
    write_shard(path, entries(6))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CacheError, match="is damaged"):
        Shard(path)


def test_a_foreign_or_missing_file_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(CacheError, match="is not a cache shard of format 1"):
        Shard(tmp_path / "model.safetensors")
    with pytest.raises(CacheError, match="no longer exists"):
        Shard(tmp_path / "none.safetensors")
