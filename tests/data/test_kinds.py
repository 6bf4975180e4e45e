"""The kinds beside lists and folders: what each reads, and what it turns away or refuses by name."""

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lavibridge.core.errors import DataError, RecipeError
from lavibridge.data.base import Dataset
from lavibridge.data.pictures.rejected import RejectedPictures

Open = Callable[..., Dataset]
Pairs = Callable[[Dataset], list[tuple[str, tuple[str, ...]]]]


def red(dataset: Dataset, index: int) -> int:
    return int(dataset.picture(index, (8, 8))[0, 0, 0])


def archive(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as file:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def test_json_lines_with_one_caption_or_several(tmp_path: Path, put: Any, opened: Open, pairs: Pairs) -> None:
    for name in ("a.png", "sub/b.png"):
        put(tmp_path / name)
    rows = [
        {"file_name": "a.png", "text": "one", "more": 1},
        {"file_name": "sub/b.png", "text": ["two", " ", "three"]},
        {"file_name": "a.png", "text": "four"},
    ]
    path = tmp_path / "metadata.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(json.dumps(row).encode() for row in rows))
    assert pairs(opened("jsonl", path=path)) == [("a.png", ("one", "four")), ("sub/b.png", ("two", "three"))]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not valid JSON"),
        ("[1]", "not a JSON object"),
        ('{"image": 3, "caption": "x"}', "missing or not text"),
        ('{"caption": "x"}', "missing or not text"),
        ('{"image": "a.png"}', "caption is missing"),
        ('{"image": "a.png", "caption": [1]}', "caption is not text"),
        ('{"image": "a.png", "caption": []}', "caption is empty"),
        ('{"image": "../a.png", "caption": "x"}', "outside"),
        ("[" * 100_000, "not valid JSON: it nests too deep"),
    ],
)
def test_a_wrong_json_line_is_set_aside_with_its_number(
    line: str, reason: str, tmp_path: Path, put: Any, opened: Open
) -> None:
    put(tmp_path / "a.png")
    path = tmp_path / "list.jsonl"
    path.write_text(f'{{"image": "a.png", "caption": "good"}}\n{line}\n')
    rejected = RejectedPictures()
    assert len(opened("jsonl", rejected, path=path, max_rejected=0.9)) == 1
    assert rejected.entries[0]["line"] == 2
    assert reason in str(rejected.entries[0]["reason"])


def test_columns_are_found_by_usual_names_or_named(tmp_path: Path, put: Any, opened: Open) -> None:
    put(tmp_path / "a.png")
    path = tmp_path / "list.jsonl"
    path.write_text('{"image": "a.png", "caption": "x", "text": "y", "seen": "z"}\n')
    with pytest.raises(DataError, match=r"several could be the caption \(caption, text\).*data\.caption"):
        opened("jsonl", path=path)
    assert opened("jsonl", path=path, caption="seen").sample(0).captions == ("z",)
    with pytest.raises(DataError, match=r"no column 'seem'; did you mean 'seen'"):
        opened("jsonl", path=path, caption="seem")


def test_a_table_of_comma_separated_values(tmp_path: Path, put: Any, opened: Open, pairs: Pairs) -> None:
    for name in ("a.png", "b.png"):
        put(tmp_path / name)
    path = tmp_path / "metadata.csv"
    path.write_bytes(
        b'\xef\xbb\xbffile_name,text\r\na.png,"one, two\r\nlines"\r\n'
        b"b.png,caf\xc3\xa9\r\na.png\r\nb.png,\xff\r\n\r\n"
    )
    rejected = RejectedPictures()
    dataset = opened("csv", rejected, path=path, max_rejected=0.9)
    assert pairs(dataset) == [("a.png", ("one, two\r\nlines",))]
    reasons = {(entry["file"], entry.get("line")): str(entry["reason"]) for entry in rejected.entries}
    assert "1 columns, the first line has 2" in reasons["metadata.csv", 5]
    assert "lone surrogate" in reasons["b.png", 4]
    path.write_text("file_name;text\na.png;one\n")
    assert pairs(opened("csv", path=path, delimiter=";")) == [("a.png", ("one",))]


@pytest.mark.parametrize("stored", ["bytes", "struct", "path"])
def test_parquet_reads_bytes_and_paths(
    stored: str, tmp_path: Path, encoded: Any, put: Any, opened: Open
) -> None:
    shades = [30, 60, 90, 120, 150]
    cells: list[Any] = [encoded(shade) for shade in shades]
    if stored == "struct":
        cells = [{"bytes": cell, "path": None} for cell in cells]
    if stored == "path":
        cells = [put(tmp_path / f"{shade}.png", shade).name for shade in shades]
    for number, part in enumerate((slice(0, 3), slice(3, 5))):
        captions = [[f"shade {shade}", "again"] for shade in shades[part]]
        table = pa.table({"image": cells[part], "caption": captions, "other": shades[part]})
        pq.write_table(table, tmp_path / f"{number}.parquet", row_group_size=2)
    dataset = opened("parquet", path=tmp_path)
    assert [red(dataset, index) for index in (4, 0, 2, 1, 3)] == [150, 30, 90, 60, 120]
    assert dataset.sample(3).captions == ("shade 120", "again")
    assert dataset.sample(3).name == "1.parquet:1"


def test_what_parquet_cannot_use_is_set_aside(tmp_path: Path, encoded: Any, opened: Open) -> None:
    table = pa.table(
        {"image": [encoded(), None, b"", b"GIF89a", encoded()], "text": ["one", "two", "three", "four", None]}
    )
    pq.write_table(table, tmp_path / "good.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and no more")
    rejected = RejectedPictures()
    assert len(opened("parquet", rejected, path=tmp_path, max_rejected=0.9)) == 1
    assert [entry["file"] for entry in rejected.entries] == [
        "bad.parquet",
        "good.parquet:5",
        "good.parquet:2",
        "good.parquet:3",
        "good.parquet:4",
    ]


def test_archives_are_read_in_place(tmp_path: Path, encoded: Any, opened: Open, pairs: Pairs) -> None:
    archive(
        tmp_path / "0.tar",
        {
            "0001.txt": b"one\ntwo\n",
            "0001.jpg": encoded(40, kind="JPEG"),
            "deep/0002.png": encoded(80),
            "deep/0002.json": b'{"caption": "three", "url": "x"}',
            "0003.more.webp": encoded(120, kind="WEBP"),
            "0003.txt": b"four",
        },
    )
    archive(tmp_path / "1.tar", {"0001.png": encoded(160), "0001.txt": b"five"})
    dataset = opened("webdataset", path=tmp_path)
    assert pairs(dataset) == [
        ("0.tar/0001.jpg", ("one", "two")),
        ("0.tar/deep/0002.png", ("three",)),
        ("0.tar/0003.more.webp", ("four",)),
        ("1.tar/0001.png", ("five",)),
    ]
    for index, shade in enumerate((40, 80, 120, 160)):
        assert abs(red(dataset, index) - shade) <= 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.tar", "1.tar"]


def test_what_an_archive_hides_is_set_aside(tmp_path: Path, encoded: Any, opened: Open) -> None:
    path = archive(
        tmp_path / "0.tar",
        {
            "good.png": encoded(),
            "good.txt": b"good",
            "../up.png": encoded(),
            "/top.png": encoded(),
            "alone.png": encoded(),
            "twice.png": encoded(),
            "twice.jpg": encoded(),
            "twice.txt": b"which?",
            "words.txt": b"no picture",
            "list.png": encoded(),
            "list.json": b"[]",
            "bad.png": b"not one",
            "bad.txt": b"bad",
        },
    )
    with tarfile.open(path, "a") as file:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    rejected = RejectedPictures()
    dataset = opened("webdataset", rejected, path=path, max_rejected=0.9)
    assert [dataset.sample(index).name for index in range(len(dataset))] == ["0.tar/good.png"]
    assert {str(entry["file"]).removeprefix("0.tar/") for entry in rejected.entries} == {
        *("../up.png", "/top.png", "alone.png", "twice.png", "words", "list.png", "bad.png", "link.png")
    }


def test_a_compressed_or_broken_off_archive_is_named(tmp_path: Path, encoded: Any, opened: Open) -> None:
    members = {
        f"{number}.{end}": data for number in range(3) for end, data in (("png", encoded()), ("txt", b"x"))
    }
    archive(tmp_path / "packed.tar", members, "w:gz")
    whole = archive(tmp_path / "cut.tar", members)
    whole.write_bytes(whole.read_bytes()[:3000])
    rejected = RejectedPictures()
    dataset = opened("webdataset", rejected, path=tmp_path, max_rejected=0.9)
    assert 0 < len(dataset) < 3
    assert {str(entry["file"]).partition("/")[0] for entry in rejected.entries} == {"packed.tar", "cut.tar"}


def test_a_data_set_of_the_hub_library(tmp_path: Path, encoded: Any, opened: Open, pairs: Pairs) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    cells = [{"bytes": encoded(50), "path": None}, {"bytes": b"broken", "path": None}, None]
    rows = datasets.Dataset.from_dict({"image": cells, "text": ["one", "two", "three"]}, features=features)
    rows.save_to_disk(str(tmp_path / "saved"))
    rejected = RejectedPictures()
    dataset = opened("hub", rejected, path=str(tmp_path / "saved"), max_rejected=0.9)
    assert pairs(dataset) == [("row 0", ("one",))]
    assert red(dataset, 0) == 50
    assert [entry["file"] for entry in rejected.entries] == ["row 1", "row 2"]
    with pytest.raises(DataError, match="cannot be loaded"):
        opened("hub", path=str(tmp_path / "nowhere"))


def test_without_the_hub_library_the_way_to_it_is_named(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['datasets'] = None\n"
        "from importlib import util; util.find_spec = lambda name: None\n"
        "from lavibridge.data.hub import Hub\n"
        "from lavibridge.data.pictures.rejected import RejectedPictures\n"
        "Hub(Hub.Config(path='x'), RejectedPictures())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'lavibridge[hub]'" in done.stderr


def test_a_mixture_joins_its_parts(tmp_path: Path, put: Any, opened: Open, pairs: Pairs) -> None:
    put(tmp_path / "a.png", 40)
    (tmp_path / "a.txt").write_text("from a folder")
    put(tmp_path / "more" / "b.png", 80)
    (tmp_path / "more" / "list.tsv").write_text("b.png\tfrom a list\ngone.png\tnever\n")
    parts = [
        {"kind": "folder", "path": str(tmp_path), "max_rejected": 0.9, "weight": 3},
        {"kind": "tsv", "path": str(tmp_path / "more" / "list.tsv"), "max_rejected": 0.9, "weight": 1},
    ]
    rejected = RejectedPictures()
    dataset = opened("mixture", rejected, parts=parts)
    assert pairs(dataset) == [("0:a.png", ("from a folder",)), ("1:b.png", ("from a list",))]
    assert [red(dataset, index) for index in range(2)] == [40, 80]
    assert [(part.count, part.weight) for part in dataset.parts()] == [(1, 3), (1, 1)]
    assert dataset.sizes().tolist() == [[30, 20], [30, 20]]
    assert dataset.content(1) == (tmp_path / "more" / "b.png").read_bytes()
    assert [entry["file"] for entry in rejected.entries] == ["0:more/b.png", "1:gone.png"]
    unweighted = opened("mixture", parts=[{**part, "weight": None} for part in parts])
    assert [part.count for part in unweighted.parts()] == [2]
    assert unweighted.fingerprint() == dataset.fingerprint()


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([], "parts"),
        (["world"], "list of sections"),
        ([{"weight": 1}], r"parts\.0\.kind is missing"),
        ([{"kind": "wrld"}], "did you mean 'world'"),
        ([{"kind": "world", "scene": 1}], r"parts\.0\.scene.*did you mean 'scenes'"),
        ([{"kind": "world", "weight": 0}], r"parts\.0\.weight: must be a number above 0"),
        ([{"kind": "world", "weight": 1}, {"kind": "world"}], "every part a weight, or none"),
        ([{"kind": "world", "size": 32}], r"parts\.0\.size: set it for the whole mixture"),
    ],
)
def test_a_wrong_mixture_is_refused_by_place(parts: list[Any], said: str, opened: Open) -> None:
    with pytest.raises(RecipeError, match=said):
        opened("mixture", parts=parts)
