"""Lists and folders of pictures: what is read, what is refused by name, what is set aside and counted."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lavibridge.core.config import validate_config
from lavibridge.core.errors import DataError, RecipeError
from lavibridge.core.registry import load_kind
from lavibridge.data.base import Dataset
from lavibridge.data.base import open_dataset as open_checked
from lavibridge.data.pictures.rejected import RejectedPictures

SIZE = (16, 16)


def picture(path: Path, shade: int = 90, size: tuple[int, int] = (20, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, 10, 10)).save(path)


def open_dataset(settings: dict[str, Any], rejected: RejectedPictures) -> Dataset:
    options = {key: value for key, value in settings.items() if key != "kind"}
    config = validate_config(load_kind("data", settings["kind"]).Config, options, "data")
    return open_checked(settings["kind"], config, rejected)


def open_list(path: Path, rejected: RejectedPictures | None = None, **options: Any) -> Dataset:
    return open_dataset({"kind": "tsv", "path": path, **options}, rejected or RejectedPictures())


def write_list(folder: Path, text: str | bytes, pictures: tuple[str, ...] = ("a.png", "b.png")) -> Path:
    for number, name in enumerate(pictures):
        picture(folder / name, shade=60 * (number + 1))
    path = folder / "pairs.tsv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_a_list_is_read_and_captions_of_one_picture_are_gathered(tmp_path: Path) -> None:
    path = write_list(tmp_path, "a.png\tone\nb.png\ttwo\na.png\tthree\n")
    dataset = open_list(path)
    assert [dataset.sample(i).name for i in range(len(dataset))] == ["a.png", "b.png"]
    assert dataset.sample(0).captions == ("one", "three")
    assert dataset.picture(1, SIZE).shape == (16, 16, 3)
    assert abs(int(dataset.picture(1, SIZE)[0, 0, 0]) - 120) <= 1


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbfa.png\tone\r\nb.png\ttwo\r\n",
        b"image_path\tcaption\na.png\tone\nb.png\ttwo",
        b"\na.png\tone\n\nb.png\ttwo\n\n",
        b"a.png\tone\textra\tmore\nb.png\ttwo\textra\n",
    ],
    ids=["bom-crlf", "header", "blank-lines", "extra-columns"],
)
def test_variants_of_the_format_give_the_same_pairs(tmp_path: Path, text: bytes) -> None:
    dataset = open_list(write_list(tmp_path, text))
    assert [dataset.sample(i).captions for i in range(len(dataset))] == [("one",), ("two",)]


def test_a_caption_keeps_unusual_line_separators(tmp_path: Path) -> None:
    dataset = open_list(write_list(tmp_path, "a.png\tone\u2028still one\x0b\n"))
    assert dataset.sample(0).captions == ("one\u2028still one",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no pairs"),
        ("image_path\tcaption\n", "holds no pairs"),
        ("a.png\tone\nb.png two\n", r"line 2: no tab in 'b.png two'"),
        ("\tone\n", "line 1: the path of the picture is empty"),
        ("/etc/passwd\tone\n", "line 1: .*absolute"),
        ("C:\\pictures\\a.png\tone\n", "line 1: .*absolute"),
        ("\\\\server\\a.png\tone\n", "line 1: .*absolute"),
        ("a.png\tone\n../a.png\ttwo\n", "line 2: .*outside"),
        ("x/../../a.png\tone\n", "line 1: .*outside"),
        ("a\0.png\tone\n", "line 1: .*NUL"),
        (b"a.png\t\xff\xfe\n", "line 1: the line is not UTF-8"),
    ],
)
def test_a_wrong_list_is_refused_by_line(tmp_path: Path, text: str | bytes, said: str) -> None:
    with pytest.raises(DataError, match=said):
        open_list(write_list(tmp_path, text))


def test_a_missing_list_a_folder_and_a_wrong_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file"):
        open_list(tmp_path / "gone.tsv")
    with pytest.raises(DataError, match="is a folder"):
        open_list(tmp_path)
    with pytest.raises(RecipeError, match="did you mean 'tsv'"):
        open_dataset({"kind": "tsvv", "path": tmp_path}, RejectedPictures())
    with pytest.raises(RecipeError, match=r"data\.pth.*did you mean 'path'"):
        open_dataset({"kind": "tsv", "pth": tmp_path}, RejectedPictures())


def test_broken_pictures_are_named_and_left_alone_below_the_limit(tmp_path: Path) -> None:
    good = tuple(f"good-{i}.png" for i in range(8))
    lines = "".join(f"{name}\tgood\n" for name in (*good, "empty.png", "gone.png"))
    path = write_list(tmp_path, lines, good)
    (tmp_path / "empty.png").write_bytes(b"")
    report = tmp_path / "run" / "rejected.jsonl"
    dataset = open_list(path, RejectedPictures(report), max_rejected=0.2)
    assert len(dataset) == 8
    entries = [json.loads(line) for line in report.read_text().splitlines()]
    assert [entry["file"] for entry in entries] == ["empty.png", "gone.png"]
    assert "0 bytes" in entries[0]["reason"]
    assert (tmp_path / "empty.png").read_bytes() == b""


def test_above_the_limit_training_stops_and_the_list_is_still_written(tmp_path: Path) -> None:
    good = tuple(f"good-{i}.png" for i in range(8))
    path = write_list(tmp_path, "".join(f"{n}\tx\n" for n in (*good, "one.png", "two.png")), good)
    report = tmp_path / "rejected.jsonl"
    with pytest.raises(
        DataError, match=r"2 of 10 pictures are unusable.*\n  one.png, line 9: there is no such file"
    ):
        open_list(path, RejectedPictures(report), max_rejected=0.19)
    assert len(report.read_text().splitlines()) == 2


def test_a_list_without_one_good_picture_is_refused_whatever_the_limit(tmp_path: Path) -> None:
    path = write_list(tmp_path, "gone.png\tone\n", ())
    with pytest.raises(DataError, match="none is left"):
        open_list(path, max_rejected=1.0)


def test_an_empty_caption_is_set_aside_with_its_line(tmp_path: Path) -> None:
    rejected = RejectedPictures()
    open_list(write_list(tmp_path, "a.png\tone\nb.png\t  \n"), rejected, max_rejected=0.5)
    assert rejected.entries == [{"file": "b.png", "reason": "its caption is empty", "line": 2}]


def test_a_link_that_leads_outside_the_root_is_not_followed(tmp_path: Path) -> None:
    picture(tmp_path / "secret" / "s.png")
    root = tmp_path / "root"
    path = write_list(root, "a.png\tone\nlink.png\ttwo\n", ("a.png",))
    (root / "link.png").symlink_to(tmp_path / "secret" / "s.png")
    rejected = RejectedPictures()
    open_list(path, rejected, max_rejected=0.5)
    assert "through a link" in str(rejected.entries[0]["reason"])


def test_root_says_where_paths_start(tmp_path: Path) -> None:
    picture(tmp_path / "pictures" / "a.png")
    path = tmp_path / "lists" / "pairs.tsv"
    path.parent.mkdir()
    path.write_text("a.png\tone\n")
    assert len(open_list(path, root=tmp_path / "pictures")) == 1


def test_a_picture_that_vanishes_later_is_an_error_that_names_it(tmp_path: Path) -> None:
    dataset = open_list(write_list(tmp_path, "a.png\tone\n"))
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match=r"a\.png was readable when it was checked"):
        dataset.picture(0, SIZE)


def test_the_fingerprint_follows_captions_and_order(tmp_path: Path) -> None:
    prints = set()
    for text in ("a.png\tone\nb.png\ttwo\n", "b.png\ttwo\na.png\tone\n", "a.png\tone\nb.png\ttwo!\n"):
        prints.add(open_list(write_list(tmp_path, text)).fingerprint())
    assert len(prints) == 3


def test_a_folder_is_read_with_its_text_files(tmp_path: Path) -> None:
    picture(tmp_path / "b.jpg")
    picture(tmp_path / "more" / "a.PNG")
    picture(tmp_path / "alone.webp")
    (tmp_path / "b.txt").write_text("first\n\nsecond\n")
    (tmp_path / "more" / "a.txt").write_bytes(b"\xef\xbb\xbfthird\r\n")
    rejected = RejectedPictures()
    dataset = open_dataset({"kind": "folder", "path": tmp_path, "max_rejected": 0.4}, rejected)
    assert [dataset.sample(i).name for i in range(len(dataset))] == ["b.jpg", "more/a.PNG"]
    assert [dataset.sample(i).captions for i in range(len(dataset))] == [("first", "second"), ("third",)]
    assert [entry["file"] for entry in rejected.entries] == ["alone.webp"]


def test_an_empty_folder_a_file_and_a_missing_folder_are_refused(tmp_path: Path) -> None:
    for path, said in ((tmp_path, "holds no pictures"), (tmp_path / "gone", "there is no folder")):
        with pytest.raises(DataError, match=said):
            open_dataset({"kind": "folder", "path": path}, RejectedPictures())
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is a file"):
        open_dataset({"kind": "folder", "path": tmp_path / "file"}, RejectedPictures())


def test_the_world_is_the_same_each_time_and_fits_any_size() -> None:
    settings = {"kind": "world", "scenes": 5, "seed": 3}
    first = open_dataset(settings, RejectedPictures())
    second = open_dataset(settings, RejectedPictures())
    assert len(first) == 5
    assert first.fingerprint() == second.fingerprint()
    for index in (4, 0):
        assert first.sample(index) == second.sample(index)
        assert np.array_equal(first.picture(index, (64, 64)), second.picture(index, (64, 64)))
    assert first.picture(1, (16, 24)).shape == (16, 24, 3)
    other = open_dataset({**settings, "seed": 4}, RejectedPictures())
    assert other.fingerprint() != first.fingerprint()
