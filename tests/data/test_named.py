"""Nothing is dropped without a name: hidden files are passed over, all else is read, rejected or noted."""

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from lavibridge.cli.main import app
from lavibridge.core.errors import DataError, RecipeError
from lavibridge.data.base import Dataset
from lavibridge.data.pictures.rejected import RejectedPictures
from lavibridge.data.pictures.walk import is_hidden, pictures_below, walk_folder

Open = Callable[..., Dataset]


def names(dataset: Dataset) -> list[str]:
    return list(dataset.names())


def files(entries: list[Any]) -> set[str]:
    return {str(entry["file"]) for entry in entries}


def with_caption(put: Any, path: Path, **options: Any) -> None:
    put(path, **options)
    path.with_suffix(".txt").write_text(f"caption of {path.name}")


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        ("a.png", False),
        ("./deep/a.b.png", False),
        ("../a.png", False),
        (".a.png", True),
        ("._a.png", True),
        (".ipynb_checkpoints/a-checkpoint.png", True),
        ("deep/.Trash-1000/files/a.png", True),
        ("__MACOSX/a.png", True),
        ("deep/@eaDir/a.png/small.jpg", True),
        ("Thumbs.db", True),
        ("DESKTOP.INI", True),
        ("", False),
    ],
)
def test_what_is_hidden(name: str, hidden: bool) -> None:
    assert is_hidden(name) == hidden


def test_a_folder_is_read_without_what_is_hidden(tmp_path: Path, put: Any, opened: Open) -> None:
    root = tmp_path / "root"
    for name in ("a.png", ".ipynb_checkpoints/a.png", "deep/.Trash-1000/b.png", "__MACOSX/c.png", "._a.png"):
        with_caption(put, root / name)
    (root / "Thumbs.db").write_bytes(b"junk")
    rejected = RejectedPictures()
    assert names(opened("folder", rejected, path=root)) == ["a.png"]
    assert rejected.all == []
    with pytest.raises(DataError, match="holds no pictures"):
        opened("folder", path=root / "deep")
    assert names(opened("folder", path=root / ".ipynb_checkpoints")) == ["a.png"]  # asked for by name


def test_every_picture_beside_a_caption_is_read_or_rejected(tmp_path: Path, put: Any, opened: Open) -> None:
    kinds = {
        "a.jfif": "JPEG",
        "b.JPEG": "JPEG",
        "c.WebP": "WEBP",
        "d": "PNG",  # no end of its own, but a caption
        "e.gif": "PNG",  # its bytes decide
        "f.bmp": "BMP",
        "g.gif": "GIF",
        "h.tiff": "TIFF",
        "i.avif": "AVIF",
        "j.jpg.part": "JPEG",
    }
    for name, kind in kinds.items():
        Image.new("RGB", (9, 7), (200, 30, 30)).save(tmp_path / name, kind)
        (
            tmp_path / f"{name.removesuffix('.part') if name[0] == 'j' else name.partition('.')[0]}.txt"
        ).write_text("words")
    rejected = RejectedPictures()
    dataset = opened("folder", rejected, path=tmp_path, max_rejected=0.5)
    assert names(dataset) == ["a.jfif", "b.JPEG", "c.WebP", "d", "e.gif", "j.jpg.part"]
    assert files(rejected.entries) == {"f.bmp", "g.gif", "h.tiff", "i.avif"}
    assert all("not a JPEG, PNG or WebP" in str(entry["reason"]) for entry in rejected.entries)
    assert rejected.warnings == []


def test_captions_and_pictures_without_each_other_are_named(tmp_path: Path, put: Any, opened: Open) -> None:
    with_caption(put, tmp_path / "a.png")
    put(tmp_path / "a.jpg")  # two pictures of one name share its caption
    put(tmp_path / "upper.PNG")
    (tmp_path / "upper.TXT").write_text("in capitals")
    put(tmp_path / "alone.png")
    (tmp_path / "lost.txt").write_text("a caption whose picture is gone")
    (tmp_path / "a.npz").write_bytes(b"what another tool keeps beside a picture")
    (tmp_path / "README.md").write_text("about the pictures")
    (tmp_path / "film.mp4").write_bytes(b"no picture")
    for turn in range(2):  # the second time from the index
        rejected = RejectedPictures(tmp_path.parent / f"{tmp_path.name}-{turn}" / "rejected.jsonl")
        dataset = opened("folder", rejected, path=tmp_path, max_rejected=0.25)
        assert names(dataset) == ["a.jpg", "a.png", "upper.PNG"]
        assert dataset.sample(2).captions == ("in capitals",)
        assert files(rejected.entries) == {"alone.png"}
        assert files(rejected.warnings) == {"lost.txt", "README.md", "film.mp4"}
        assert rejected.path is not None
        listed = [json.loads(line) for line in rejected.path.read_text().splitlines()]
        assert listed == rejected.all
        assert [each["file"] for each in listed if each.get("counted", True)] == ["alone.png"]


def test_links_are_followed_as_far_as_the_folder(tmp_path: Path, put: Any, opened: Open) -> None:
    root = tmp_path / "root"
    with_caption(put, root / "real" / "a.png")
    with_caption(put, root / ".store" / "b.png")
    with_caption(put, tmp_path / "elsewhere" / "c.png")
    for name, target in (
        ("alias", "real"),
        ("stored", ".store"),
        ("outside", "../elsewhere"),
        ("nowhere", "gone"),
        ("ring", "ring"),
        ("real/up", ".."),
    ):
        (root / name).symlink_to(target)
    rejected = RejectedPictures()
    dataset = opened("folder", rejected, path=root, max_rejected=0.9)
    assert names(dataset) == ["real/a.png", "stored/b.png"]
    assert files(rejected.entries) == {"outside", "nowhere", "ring"}
    assert files(rejected.warnings) == {"alias", "real/up"}
    before = dataset.fingerprint()
    with_caption(put, root / ".store" / "d.png")  # behind the link: noticed too
    assert names(opened("folder", path=root, max_rejected=0.9)) == [
        "real/a.png",
        "stored/b.png",
        "stored/d.png",
    ]
    assert opened("folder", path=root, max_rejected=0.9).fingerprint() != before


def test_a_folder_whose_name_is_no_text_is_read(tmp_path: Path, put: Any, opened: Open) -> None:
    with_caption(put, tmp_path / "a.png")
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/odd-\xff"))
    with_caption(put, odd / "b.png")
    rejected = RejectedPictures()
    assert names(opened("folder", rejected, path=tmp_path, max_rejected=0.5)) == ["a.png"]
    assert "lone surrogate" in str(rejected.entries[0]["reason"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root opens every folder")
def test_a_folder_that_cannot_be_opened_is_counted(tmp_path: Path) -> None:
    (tmp_path / "shut").mkdir(mode=0)
    assert set(walk_folder(tmp_path).refused) == {"shut"}


@pytest.mark.parametrize("kind", ["tsv", "csv", "jsonl"])
def test_a_list_that_names_what_is_hidden_is_answered_by_line(
    kind: str, tmp_path: Path, put: Any, opened: Open
) -> None:
    rows = ["a.png", ".ipynb_checkpoints/a.png", "deep/._b.png"]
    for name in rows:
        put(tmp_path / name)
    lines = {
        "tsv": [f"{name}\tx" for name in rows],
        "csv": ["image,caption", *(f"{name},x" for name in rows)],
        "jsonl": [json.dumps({"image": name, "caption": "x"}) for name in rows],
    }[kind]
    (tmp_path / "list").write_text("\n".join(lines))
    rejected = RejectedPictures()
    assert names(opened(kind, rejected, path=tmp_path / "list", max_rejected=0.9)) == ["a.png"]
    assert files(rejected.entries) == {".ipynb_checkpoints/a.png", "deep/._b.png"}
    assert {entry["line"] - (kind == "csv") for entry in rejected.entries} == {2, 3}


def test_archives_and_tables_are_held_to_the_same(tmp_path: Path, encoded: Any, opened: Open) -> None:
    archives, tables = tmp_path / "archives", tmp_path / "tables"
    for folder in (archives, archives / ".old", tables, tables / ".old", tmp_path / "elsewhere"):
        folder.mkdir()
    members = {
        "0.jfif": encoded(kind="JPEG"),
        "0.txt": b"zero",
        "._0.jfif": b"what macOS puts beside it",
        ".ipynb_checkpoints/1.png": encoded(),
        ".ipynb_checkpoints/1.txt": b"one",
        "2.GIF": b"GIF89a",
        "2.TXT": b"two",
        "3.png": encoded(),
        "3.gif": b"GIF89a",
        "3.txt": b"three",
    }
    with tarfile.open(archives / "0.tar", "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    for copy in (archives / "._0.tar", archives / ".old" / "1.tar", tmp_path / "elsewhere" / "2.tar"):
        copy.write_bytes((archives / "0.tar").read_bytes())
    (archives / "packed.tar.gz").write_bytes(b"packed")
    (archives / "more").symlink_to("../elsewhere")
    rejected = RejectedPictures()
    assert names(opened("webdataset", rejected, path=archives, max_rejected=0.9)) == [
        "0.tar/0.jfif",
        "0.tar/3.png",
    ]
    assert files(rejected.entries) == {"more", "0.tar/2.GIF"}
    assert files(rejected.warnings) == {"packed.tar.gz", "0.tar/3.gif"}
    table = pa.table({"image": ["a.png", ".b.png"], "caption": ["x", "y"]})
    pq.write_table(table, tables / "0.parquet")
    pq.write_table(table, tables / ".old" / "1.parquet")
    (tables / "a.png").write_bytes(encoded())
    (tables / ".b.png").write_bytes(encoded())
    rejected = RejectedPictures()
    assert names(opened("parquet", rejected, path=tables, max_rejected=0.9)) == ["0.parquet:1"]
    assert files(rejected.entries) == {"0.parquet:2"}


def test_captions_in_utf_16_are_no_captions(tmp_path: Path, put: Any, opened: Open) -> None:
    put(tmp_path / "good.png")
    (tmp_path / "good.txt").write_text("good")
    for name, text in (
        ("a", "a cat".encode("utf-16-le")),
        ("b", "猫 と 犬".encode("utf-16-be")),
        ("c", b"\xff\xfec\0"),
    ):
        put(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_bytes(text)
    rejected = RejectedPictures()
    assert names(opened("folder", rejected, path=tmp_path, max_rejected=0.9)) == ["good.png"]
    assert all("UTF-8" in str(entry["reason"]) for entry in rejected.entries)
    assert files(rejected.entries) == {"a.png", "b.png", "c.png"}


@pytest.mark.parametrize("delimiter", ["", ",,", "||", '"', "\n", "\0", "\\n", "semicolon"])
def test_a_delimiter_that_is_not_one_sign_is_refused(delimiter: str, tmp_path: Path, opened: Open) -> None:
    with pytest.raises(RecipeError, match=r"data\.delimiter: must be one character"):
        opened("csv", path=tmp_path / "list.csv", delimiter=delimiter)


@pytest.mark.parametrize(
    ("delimiter", "sign"), [("\\t", "\t"), ("\t", "\t"), ("|", "|"), (" ", " "), ("§", "§")]
)
def test_a_table_with_another_sign_between_columns(
    delimiter: str, sign: str, tmp_path: Path, put: Any, opened: Open
) -> None:
    put(tmp_path / "a.png")
    (tmp_path / "list.csv").write_text(f"image{sign}caption\na.png{sign}one\n")
    assert opened("csv", path=tmp_path / "list.csv", delimiter=delimiter).sample(0).captions == ("one",)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (b'"image,caption\na.png,x\n', "names the columns, is not CSV"),
        (b'"image"x,caption\na.png,x\n', "names the columns, is not CSV"),
        (b"\na.png,x\n", "is empty"),
        (b"", "is empty"),
        (b"image;caption\na.png;x\n", r"data\.delimiter=','.*columns image;caption"),
        (b"image,caption,caption\na.png,x,y\n", "several could be the caption"),
        ("image,caption\na.png,x\n".encode("utf-16-le"), "not UTF-8"),
        ("image,caption\na.png,x\n".encode("utf-16"), "not UTF-8"),
        (b"im\xe9ge,caption\na.png,x\n", "not UTF-8"),
    ],
)
def test_a_broken_header_is_answered_in_words(header: bytes, said: str, tmp_path: Path, opened: Open) -> None:
    (tmp_path / "list.csv").write_bytes(header)
    with pytest.raises(DataError, match=said):
        opened("csv", path=tmp_path / "list.csv")
    (tmp_path / "list.csv").write_bytes(b"image,text,text\na.png,x,y\n")
    with pytest.raises(DataError, match="2 columns 'text'"):
        opened("csv", path=tmp_path / "list.csv", caption="text")


def test_a_folder_of_pictures_to_measure_on_is_read_by_the_same_rule(tmp_path: Path, put: Any) -> None:
    for name in ("10.png", "2.jfif", "deep/3.GIF", ".old/4.png", "notes.txt"):
        put(tmp_path / name)
    assert {path.name for path in pictures_below(tmp_path)} == {"10.png", "2.jfif", "3.GIF"}
    (tmp_path / "link").symlink_to("..")
    with pytest.raises(DataError, match=r"link: .*through a link"):
        pictures_below(tmp_path)


def test_the_command_says_how_many_files_it_notes(tmp_path: Path, put: Any) -> None:
    with_caption(put, tmp_path / "a.png")
    (tmp_path / "README.md").write_text("about the pictures")
    arguments = ["data", "check", "mini-llama_mini-sd_lavi", "data.kind=folder", f"data.path={tmp_path}"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert "1 usable pictures, 0 rejected" in done.stdout
    assert "the list also names 1 files" in done.stdout
    listed = Path(done.stdout.split("rejected: ")[1].strip())
    assert json.loads(listed.read_text())["file"] == "README.md"
