"""Sources of prompts: any words survive, absent or wrong files are said so, long prompts are written."""

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from lavibridge.cli.prompts import app
from lavibridge.core.errors import DataError, LaviError, ModelError, RecipeError
from lavibridge.evaluation.benchmark_files import find_benchmark_file
from lavibridge.evaluation.metrics.world import WorldMetric
from lavibridge.evaluation.prompt_expansion import PromptExpander
from lavibridge.evaluation.shipped import shipped_suites
from lavibridge.evaluation.suite import open_suite_prompts, read_suite
from lavibridge.evaluation.tasks import make_tasks
from lavibridge.world.captions import evaluation_prompts
from lavibridge.world.drawing import draw_scene

ODD = ["a, b / c", 'a "quoted" \\ line', "🙂🙂 naïve", "x" * 10_000, "../../etc", "tab\there", "a\u2028b"]


def lines(path: Path, *texts: str) -> Path:
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def test_any_words_are_prompts_and_none_names_a_file(tmp_path: Path) -> None:
    source = open_suite_prompts({"kind": "lines", "path": str(lines(tmp_path / "p.txt", *ODD))})
    suite = read_suite("lavi-long")
    tasks = make_tasks(suite, source, None, None, 0)
    assert [task.prompt for task in tasks] == ODD
    assert len({task.key for task in tasks}) == len(ODD)
    for place, task in enumerate(tasks):
        assert task.file == f"images/00-prompts/{place:05d}-0.png"


def test_a_prompt_that_comes_twice_is_drawn_twice(tmp_path: Path) -> None:
    source = open_suite_prompts({"kind": "lines", "path": str(lines(tmp_path / "p.txt", "a", "b", "a"))})
    suite = read_suite("lavi-long").model_copy(update={"seeds": 2})
    tasks = make_tasks(suite, source, None, None, 0)
    assert len({task.key for task in tasks}) == len({task.file for task in tasks}) == 6
    first = make_tasks(suite, source, None, 2, 0)
    assert tasks[:4] == first


def test_a_table_gives_categories_and_a_card_that_follows_its_contents(tmp_path: Path) -> None:
    rows = [
        ("Prompt", "Category", "Note"),
        ('a "red" box', "Food & Beverage", ""),
        ("an owl", "Animals", "n"),
    ]
    tsv = lines(tmp_path / "p.tsv", *("\t".join(row) for row in rows))
    named = {"kind": "table", "path": str(tsv), "prompt": "Prompt", "category": "Category"}
    source = open_suite_prompts(named)
    assert source.categories == ("Food & Beverage", "Animals")
    assert [each.text for each in source.prompts("Food & Beverage")] == ['a "red" box']
    csv = lines(tmp_path / "p.csv", 'prompt,kind\n"a, b",x\n"two\nlines",y')
    table = open_suite_prompts({"kind": "table", "path": str(csv), "category": "kind"})
    assert [each.text for each in table.prompts("y")] == ["two\nlines"]
    jsonl = lines(tmp_path / "p.jsonl", json.dumps({"prompt": "one 🙂"}), json.dumps({"prompt": "two"}))
    assert [
        each.text for each in open_suite_prompts({"kind": "table", "path": str(jsonl)}).prompts("prompts", 1)
    ] == ["one 🙂"]
    card = source.card()
    lines(tsv, "Prompt\tCategory", "an owl\tAnimals")
    assert open_suite_prompts(named).card() != card
    assert str(tmp_path) not in str(card)


def test_coco_gives_one_caption_a_picture_and_fewer_are_the_first_of_more(tmp_path: Path) -> None:
    notes = [
        {"id": 100 - i, "image_id": i // 2, "caption": f" caption {100 - i}\n of  {i // 2} "}
        for i in range(40)
    ]
    path = tmp_path / "captions.json"
    path.write_text(json.dumps({"annotations": notes}))
    found = open_suite_prompts({"kind": "coco", "path": str(path), "count": 20}).prompts("coco")
    assert len({each.name for each in found}) == 20
    for each in found:
        assert each.text == f"caption {99 - 2 * int(each.name)} of {each.name}"
    fewer = open_suite_prompts({"kind": "coco", "path": str(path), "count": 5}).prompts("coco")
    assert fewer == found[:5]
    with pytest.raises(DataError, match="of 20 pictures, fewer than `count: 21`"):
        open_suite_prompts({"kind": "coco", "path": str(path), "count": 21})
    path.write_text("[]")
    with pytest.raises(DataError, match="not a caption file of COCO"):
        open_suite_prompts({"kind": "coco", "path": str(path)})


def test_absent_and_wrong_files_are_said_so(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"captions_val2014\.json.*cocodataset\.org.*set --prompts to its path"
    ):
        open_suite_prompts(read_suite("lavi-short").prompts)
    with pytest.raises(DataError, match=r"lavi prompts expand"):
        open_suite_prompts(read_suite("lavi-long").prompts)
    with pytest.raises(DataError, match=r"github\.com/google-research/parti"):
        open_suite_prompts(read_suite("parti").prompts, str(tmp_path / "nothing.tsv"))
    with pytest.raises(DataError, match=r"must be hf://datasets/OWNER/NAME/FILE"):
        find_benchmark_file("hf://datasets/owner", "it", "there")
    (tmp_path / "latin.txt").write_bytes("naïve".encode("latin-1"))
    (tmp_path / "empty.txt").write_text("\n \n")
    for name, match in (("latin.txt", "not UTF-8"), ("empty.txt", "has no lines"), (".", "is a folder")):
        with pytest.raises(DataError, match=match):
            open_suite_prompts({"kind": "lines", "path": str(tmp_path / name)})
    bad = lines(tmp_path / "p.tsv", "Prompt\tCategory", "\tAnimals")
    named = {"kind": "table", "path": str(bad), "prompt": "Prompt"}
    with pytest.raises(DataError, match="row 1: the prompt is empty"):
        open_suite_prompts(named)
    with pytest.raises(DataError, match="did you mean 'Category'"):
        open_suite_prompts({**named, "category": "category"})
    with pytest.raises(RecipeError, match="unknown key"):
        open_suite_prompts({"kind": "world", "path": "x", "categories": {"one": 1}})


def test_every_shipped_suite_names_kinds_and_options_that_exist() -> None:
    """Prompt files and weights are absent here, and nothing else may be wrong."""
    for name in shipped_suites():
        suite = read_suite(name)
        assert suite.name == name
        if name.startswith("world"):
            assert open_suite_prompts(suite.prompts).categories
            continue
        with pytest.raises(DataError, match="there is no '/nothing/here'"):
            open_suite_prompts(suite.prompts, "/nothing/here")


def test_the_world_says_the_same_specs_at_length() -> None:
    short = evaluation_prompts("spatial", 12)
    source = open_suite_prompts({"kind": "world", "categories": {"spatial": 12}, "length": "long"})
    long = source.prompts("spatial")
    assert [each.metadata for each in long] == [pair.spec for pair in short]
    assert source.prompts("spatial", 5) == long[:5]
    for pair, each in zip(short, long, strict=True):
        assert each.text.count(".") >= 2
        assert len(each.text) > len(pair.caption)
    tasks = make_tasks(read_suite("world-long"), source, None, None, 0)
    pictures = [Image.fromarray(draw_scene(pair.scene)) for pair in short]
    metric = WorldMetric(WorldMetric.Config())
    assert all(score.value == 1 for score in metric.score(pictures, tasks))
    with pytest.raises(DataError, match="only the category spatial"):
        open_suite_prompts({"kind": "world", "categories": {"one": 1}, "length": "long"})


def test_long_prompts_are_written_line_by_line_and_gone_on_with(tmp_path: Path) -> None:
    """mini-llama has read about the world, and goes on with a prompt."""
    short = lines(
        tmp_path / "short.txt", *(f"a red circle and a {word} star" for word in ("blue", "green") * 5)
    )
    out = tmp_path / "long.txt"
    asked = ["expand", str(short), "--model", "mini-llama", "--out", str(out), "--tokens", "8"]
    asked += ["--instruction", "{prompt} and"]
    runner = CliRunner()
    assert runner.invoke(app, asked).exit_code == 0
    whole = out.read_text().splitlines()
    assert len(whole) == 10
    assert all(line.strip() for line in whole)
    assert set(whole[:2]) == set(whole)  # the same prompt, the same words, whatever stands beside it
    out.write_text("\n".join(whole[:5]) + "\na line cut sh")
    assert runner.invoke(app, asked).exit_code == 0
    assert out.read_text().splitlines() == whole
    with pytest.raises(DataError, match="another model, instruction or prompt file"):
        runner.invoke(app, [*asked, "--instruction", "{prompt} or"], catch_exceptions=False)


def test_what_cannot_write_is_refused() -> None:
    with pytest.raises(ModelError, match="'mini-t5-small' cannot be loaded as AutoModelForCausalLM"):
        PromptExpander("mini-t5-small").expand(["a red circle"])
    with pytest.raises(DataError, match="must contain"):
        PromptExpander("mini-llama", instruction="say more")


def test_a_suites_prompts_are_listed() -> None:
    done = CliRunner().invoke(app, ["list", "world", "--category", "one", "--limit", "3"])
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [pair.caption for pair in evaluation_prompts("one", 3)]
    wrong = CliRunner().invoke(app, ["list", "world", "--category", "on"])
    assert isinstance(wrong.exception, LaviError)


def test_numbers_of_prompts_are_checked() -> None:
    for categories in ({"one": 0}, {"ones": 3}):
        with pytest.raises(DataError, match="at least 1 prompt"):
            open_suite_prompts({"kind": "world", "categories": categories})
