"""How far the world's learned judges agree with its exact checker, on the pictures of an evaluation.

lavi evaluate mini-sd --suite world --limit 100 --out FOLDER
python benchmarks/judges.py FOLDER        writes docs/judges.md
"""

import json
import sys
from pathlib import Path

from PIL import Image

from lavibridge.evaluation.agreement import auroc, kendall_tau, metric_agreement
from lavibridge.evaluation.stats import Estimate, estimate
from lavibridge.world.captions import CATEGORIES, evaluation_prompts, sample_captioned_scene
from lavibridge.zoo.scorers import Scorer, clip_scorer, hard_negative_accuracy, resnet_scorer

PAGE = Path(__file__).parents[1] / "docs" / "judges.md"
HEAD = """# The learned judges of the miniature world

How far what learned judges say agrees with what is true. Made by `python benchmarks/judges.py FOLDER` from
the pictures of `lavi evaluate mini-sd --suite world --limit 100 --out FOLDER`; 95 % intervals in brackets,
by the bootstrap over pictures (Wilson's for shares).

- **AUROC**: the chance that a picture which keeps all promises is scored above one that does not; 0.5 knows
  nothing. Empty where (nearly) all pictures are of one kind.
- **tau**: Kendall's tau-b between the score and the share of the checker's clauses that hold.
- **told apart**: of true pictures, the share for which the judge prefers the true prompt to one with two
  colors or the ends of a relation swapped, or one attribute changed; half for a tie, chance is 0.5.

`mini-clip` scores by the cosine of picture and prompt, as a CLIP score does. `mini-resnet` scores by the
probability of what the prompt names, and cannot know what belongs to what.
"""
LEAST = 5
"""Pictures of each kind without which no AUROC is given."""


def main() -> None:
    """Measure, print and write."""
    folder = Path(sys.argv[1])
    records = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    judges = {"mini-clip": clip_scorer(), "mini-resnet": resnet_scorer()}
    lines = [
        HEAD,
        "| category | n | right |" + "".join(f" {name}: AUROC | tau | told apart |" for name in judges),
    ]
    lines.append("| --- |" + " --- |" * (2 + 3 * len(judges)))
    for category in CATEGORIES:
        mine = [record for record in records if record["category"] == category]
        if mine:
            lines.append(row(category, mine, folder, judges))
            print(lines[-1], flush=True)
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def row(category: str, records: list[dict], folder: Path, judges: dict[str, Scorer]) -> str:  # type: ignore[type-arg]
    """The table's line of a category."""
    by_caption = {pair.caption: pair for pair in evaluation_prompts(category, len(records))}
    pairs = [by_caption[record["prompt"]] for record in records]
    pictures = [Image.open(folder / record["file"]).convert("RGB") for record in records]
    right = [record["scores"]["world"] for record in records]
    clauses = [record["clauses"]["world"].values() for record in records]
    kept = [sum(each) / len(each) for each in clauses]
    real = [sample_captioned_scene(7, index, category=category) for index in range(len(records))]
    cells = [category, str(len(records)), f"{sum(right) / len(right):.0%}"]
    for judge in judges.values():
        scores = judge(pictures, pairs)
        both = LEAST <= sum(right) <= len(right) - LEAST
        cells.append(shown(metric_agreement(auroc, scores, right)) if both else "")
        cells.append(shown(metric_agreement(kendall_tau, scores, kept)))
        preferred = hard_negative_accuracy(judge, real)
        cells.append(shown(estimate({str(index): [value] for index, value in enumerate(preferred)})))
    return f"| {' | '.join(cells)} |"


def shown(found: Estimate) -> str:
    """An estimate as text."""
    return "" if found.mean != found.mean else f"{found.mean:.2f} ({found.low:.2f} to {found.high:.2f})"


if __name__ == "__main__":
    main()
