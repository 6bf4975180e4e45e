"""Benchmarks' own files: read as published, and refused with their line where they are not."""

import json

import pytest

from lavibridge.core import registry
from lavibridge.core.config import validate_config
from lavibridge.core.errors import DataError
from lavibridge.evaluation.benchmarks.dsg import DsgQuestionGraph
from lavibridge.evaluation.benchmarks.geneval import GenEvalRequirements
from lavibridge.evaluation.benchmarks.numeracy import ObjectCounts
from lavibridge.evaluation.benchmarks.prompt_metadata import ComplexMetadata, PhrasesMetadata
from lavibridge.evaluation.benchmarks.soft_tifa import TifaAtoms
from lavibridge.evaluation.benchmarks.spatial import SpatialRelation
from lavibridge.evaluation.benchmarks.wise import WiseExplanation
from lavibridge.evaluation.prompts.base import PromptSource

STRANGE = 'a cat, a "dog"/bird 😀 ' + "x" * 10_000
CSV = (
    "item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,"
    "question_natural_language\n"
)


def source(kind: str, **options: object) -> PromptSource:
    made = registry.load_kind("evaluation.prompts", kind)
    found: PromptSource = made(validate_config(made.Config, options, kind))
    return found


def lines(path, *records):
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return str(path)


GENEVAL = [
    {"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"},
    {
        "tag": "counting",
        "include": [{"class": "bus", "count": 3}],
        "exclude": [{"class": "bus", "count": 4}],
        "prompt": STRANGE,
    },
]
ATOMS = {
    "prompt": "two red cats",
    "atom_count": 3,
    "vqa_list": [["How many cats are in the image?", "two"], ["Are the cats red?", "Yes"]],
    "skills": ["count", "attribute"],
}


@pytest.mark.parametrize("kind", ["compbench", "dpg", "geneval", "geneval2", "wise"])
def test_absent_files_are_asked_for_with_where_they_come_from(kind, tmp_path):
    with pytest.raises(DataError, match=r"github.com/.*--prompts"):
        source(kind)
    with pytest.raises(DataError, match=r"github\.com/"):
        source(kind, path=str(tmp_path / "nowhere"))
    with pytest.raises(DataError):
        source(kind, path=str(tmp_path))


def test_geneval(tmp_path):
    found = source("geneval", path=lines(tmp_path / "x.jsonl", *GENEVAL))
    assert found.categories == ("single_object", "counting")
    [prompt] = found.prompts("counting")
    assert prompt.text == STRANGE
    assert prompt.name == "00001"
    assert isinstance(prompt.metadata, GenEvalRequirements)
    assert prompt.metadata.is_counting
    assert prompt.metadata.names == ("bus",)
    assert found.prompts("counting", 0) == []
    assert len(found.card()["sha256"]) == 64


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("{", "line 2 is not valid JSON"),
        ("[]", "line 2 must be an object"),
        ('{"tag": "x", "prompt": "y"}', "lacks include"),
        ('{"tag": "x", "prompt": "y", "include": [{"class": "cat"}]}', "line 2: 'count'"),
        ('{"tag": "x", "prompt": "y", "include": []}', "is empty"),
    ],
)
def test_geneval_names_the_line_that_is_wrong(bad, reason, tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text(f"{json.dumps(GENEVAL[0])}\n{bad}\n")
    with pytest.raises(DataError, match=reason):
        source("geneval", path=str(path))


def test_geneval2(tmp_path):
    ten = {**ATOMS, "prompt": STRANGE, "atom_count": 10}
    found = source("geneval2", path=lines(tmp_path / "x.jsonl", ten, ATOMS))
    assert found.categories == ("3 atoms", "10 atoms")
    [prompt] = found.prompts("3 atoms")
    assert isinstance(prompt.metadata, TifaAtoms)
    assert [(atom.answer, atom.skill) for atom in prompt.metadata.atoms] == [
        ("two", "count"),
        ("Yes", "attribute"),
    ]
    with pytest.raises(DataError, match=r"line 1: expected .*`vqa_list`"):
        source("geneval2", path=lines(tmp_path / "y.jsonl", {**ATOMS, "skills": ["count"]}))


def wise(number: object, **changes: object) -> dict[str, object]:
    text = {"prompt_id": number, "Prompt": f"prompt {number}", "Explanation": "a carnation"}
    return {**text, **changes}


def test_wise(tmp_path):
    numbers = (1, 400, 401, 520, 521, 640, 641, 760, 761, 880, 881, 1000)
    (tmp_path / "merge.json").write_text(json.dumps([wise(each, Category="any") for each in numbers]))
    for path in (tmp_path, tmp_path / "merge.json"):
        found = source("wise", path=str(path))
        assert found.categories == ("culture", "time", "space", "biology", "physics", "chemistry")
        names = [[prompt.name for prompt in found.prompts(each)] for each in found.categories]
        assert names == [[f"{a:04d}", f"{b:04d}"] for a, b in zip(numbers[::2], numbers[1::2], strict=True)]
    assert found.prompts("time", limit=1)[0].metadata == WiseExplanation(text="a carnation")
    assert len(found.card()["sha256"]) == 64


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        ("[", "not valid JSON"),
        ("{}", "must be a list"),
        ("[]", "must be a list"),
        ([1], "record 1 must be an object .*lacks prompt_id"),
        ([wise(1), {"prompt_id": 2, "Prompt": "a"}], "record 2 must .*lacks Explanation"),
        ([wise(1001)], "from 1 to 1000, found 1001"),
        ([wise("1")], "from 1 to 1000, found '1'"),
        ([wise(True)], "from 1 to 1000, found True"),
        ([wise(1), wise(1)], "record 2: the prompt_id 1 appears twice"),
        ([wise(1, Prompt=" ")], "expected a text in Prompt, found ' '"),
        ([wise(1, Explanation=None)], "expected a text in Explanation, found None"),
    ],
)
def test_wise_names_the_record_that_is_wrong(records, reason, tmp_path):
    (tmp_path / "merge.json").write_text(records if isinstance(records, str) else json.dumps(records))
    with pytest.raises(DataError, match=reason):
        source("wise", path=str(tmp_path))


def dpg_rows(*rows: tuple[str, str, str, str, str]) -> str:
    return CSV + "".join(
        f'{item},"{text}",k,{number},"{parents}",entity,whole,"{kind} (x)",Is there x?\n'
        for item, text, number, parents, kind in rows
    )


def test_dpg(tmp_path):
    (tmp_path / "dpg_bench.csv").write_text(
        dpg_rows(
            ("a", "A cat, a dog.", "1", "0", "entity - whole"),
            ("a", "A cat, a dog.", "2", "0, 1", "attribute - color"),
            ("b", "Two\nlines 😀", "1", "0", "global"),
        ),
        encoding="utf-8",
    )
    found = source("dpg", path=str(tmp_path))
    assert found.categories == ("dense",)
    first, second = found.prompts("dense")
    assert (first.name, second.text) == ("a", "Two\nlines 😀")
    assert isinstance(first.metadata, DsgQuestionGraph)
    assert [(each.category, each.parents) for each in first.metadata.questions] == [
        ("entity", ()),
        ("attribute", (1,)),
    ]
    assert first.metadata.opens_file
    assert not second.metadata.opens_file


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([("a", "x", "one", "0", "entity")], "line 2: expected .*`proposition_id`"),
        ([("a", "x", "1", "0", "entity"), ("a", "y", "2", "0", "entity")], "another text"),
        ([("a", "", "1", "0", "entity")], "has no text"),
        ([("a", "x", "1", "", "entity")], "empty column"),
        ([], "holds no questions"),
    ],
)
def test_dpg_names_what_is_wrong(rows, reason, tmp_path):
    path = tmp_path / "x.csv"
    path.write_text(dpg_rows(*rows))
    with pytest.raises(DataError, match=reason):
        source("dpg", path=str(path))
    path.write_text("text\nx\n")
    with pytest.raises(DataError, match="no column item_id"):
        source("dpg", path=str(path))


@pytest.fixture
def compbench(tmp_path):
    files = {
        "color_val": ["a green bench and a blue bowl"],
        "shape_val": ["an oval sink and a rectangular mirror."],
        "texture_val": ["rubber gloves and a glass jar"],
        "spatial_val": ["a cat on the left of a sofa"],
        "numeracy_val": ["four apples and one lemon"],
        "non_spatial_val": [STRANGE],
        "complex_val": [
            "The red hat was on top of the brown coat.",
            "The brown dog ran.",
            "The soft cat sat near the red sofa, a joy.",
        ],
        "complex_val_spatial": ["The red hat was on top of the brown coat"],
        "complex_val_action": ["the brown dog ran."],
        "new_objects": ["apple - apples", "lemon - lemons"],
    }
    for name, texts in files.items():
        (tmp_path / f"{name}.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    return tmp_path


def test_compbench(compbench):
    found = source("compbench", path=str(compbench))
    assert found.categories == ("color", "shape", "texture", "spatial", "numeracy", "non-spatial", "complex")
    truths = {category: [each.metadata for each in found.prompts(category)] for category in found.categories}
    assert truths["color"] == [PhrasesMetadata(phrases=("a green bench", "a blue bowl"))]
    assert truths["texture"] == [PhrasesMetadata(phrases=("rubber gloves", "a glass jar"))]
    assert truths["spatial"] == [SpatialRelation(first="cat", where="left", second="sofa")]
    assert truths["numeracy"] == [ObjectCounts(things={"apple": 4, "lemon": 1})]
    assert truths["non-spatial"] == [None]
    hat, dog, cat = truths["complex"]
    assert (hat.is_spatial, hat.is_action) == (True, False)
    assert (dog.is_spatial, dog.is_action, dog.relation) == (False, True, None)
    assert (cat.is_spatial, cat.is_action) == (True, True)
    assert cat.relation == SpatialRelation(first="cat", where="near", second="sofa")
    assert hat.bare == "The hat was on top of the coat ."
    assert set(found.card()["sha256"]) == {path.name for path in compbench.iterdir()}


def test_compbench_takes_another_parsers_reading(compbench):
    parses = {
        "The red hat was on top of the brown coat.": {
            "phrases": ["The hat"],
            "objects": ["cap", "coat"],
            "without_adjectives": "hat on coat",
        },
        "a green bench and a blue bowl": {"phrases": ["a bench"]},
    }
    (compbench / "mine.json").write_text(json.dumps(parses))
    found = source(
        "compbench",
        path=str(compbench),
        categories=["complex", "color"],
        parses=str(compbench / "mine.json"),
    )
    assert found.prompts("color")[0].metadata == PhrasesMetadata(phrases=("a bench",))
    hat = found.prompts("complex")[0].metadata
    assert isinstance(hat, ComplexMetadata)
    assert (hat.phrases, hat.bare) == (("The hat",), "hat on coat")
    assert hat.relation == SpatialRelation(first="cap", where="top", second="coat")
    (compbench / "mine.json").write_text('{"a cat": {"phrase": []}}')
    with pytest.raises(DataError, match="did you mean 'phrases'"):
        source("compbench", path=str(compbench), parses=str(compbench / "mine.json"))
    (compbench / "mine.json").write_text("[1]")
    with pytest.raises(DataError, match="object of objects"):
        source("compbench", path=str(compbench), parses=str(compbench / "mine.json"))


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("color_val", "and 😀 or", "line 1: 'and 😀 or' holds no noun phrase"),
        ("spatial_val", "a cat on the left of a sofa\na cat", "line 2: 'a cat' states no relation"),
        ("numeracy_val", "two zebras", "counts nothing"),
        ("new_objects", "apple", "line 1 should read"),
    ],
)
def test_compbench_names_the_line_that_promises_nothing(compbench, name, text, reason):
    (compbench / f"{name}.txt").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=reason):
        source("compbench", path=str(compbench))


def test_compbench_needs_the_files_of_its_categories_only(compbench):
    (compbench / "numeracy_val.txt").unlink()
    with pytest.raises(DataError, match=r"no numeracy_val.txt in .*github"):
        source("compbench", path=str(compbench))
    assert source("compbench", path=str(compbench), categories=["color"]).categories == ("color",)
