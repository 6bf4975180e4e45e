"""Measures how well the world's learned scorers agree with its exact checker on evaluated images.

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
HEAD = """# The learned scorers of the miniature world

This page shows how well learned scorers agree with the exact checker. `python benchmarks/judges.py FOLDER`
writes it from the images of `lavi evaluate mini-sd --suite world --limit 100 --out FOLDER`. Brackets hold
95 % intervals: a bootstrap over images, or Wilson's interval for shares.

- **AUROC**: the probability that an image which satisfies every clause scores higher than one that does not.
  0.5 is chance. The cell is empty where (nearly) all images are right, or all wrong.
- **tau**: Kendall's tau-b between the score and the share of the checker's clauses that hold.
- **told apart**: the share of true images for which the scorer prefers the true prompt to a wrong one, which
  swaps two colours or the ends of a relation, or changes one attribute. A tie counts half; 0.5 is chance.

`mini-clip` scores by the cosine of image and prompt, like a CLIP score. `mini-resnet` scores by the
probability of the attributes in the prompt; it cannot see which attributes belong together.
"""
LEAST = 5
"""Minimum number of right and of wrong images for an AUROC."""


def main() -> None:
    """Measure, print and write."""
    folder = Path(sys.argv[1])
    records = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    scorers = {"mini-clip": clip_scorer(), "mini-resnet": resnet_scorer()}
    lines = [
        HEAD,
        "| category | n | right |" + "".join(f" {name}: AUROC | tau | told apart |" for name in scorers),
    ]
    lines.append("| --- |" + " --- |" * (2 + 3 * len(scorers)))
    for category in CATEGORIES:
        mine = [record for record in records if record["category"] == category]
        if mine:
            lines.append(row(category, mine, folder, scorers))
            print(lines[-1], flush=True)
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def row(category: str, records: list[dict], folder: Path, scorers: dict[str, Scorer]) -> str:
    """Format the row of a category."""
    by_caption = {pair.caption: pair for pair in evaluation_prompts(category, len(records))}
    pairs = [by_caption[record["prompt"]] for record in records]
    pictures = [Image.open(folder / record["file"]).convert("RGB") for record in records]
    right = [record["scores"]["world"] for record in records]
    clauses = [record["clauses"]["world"].values() for record in records]
    kept = [sum(each) / len(each) for each in clauses]
    real = [sample_captioned_scene(7, index, category=category) for index in range(len(records))]
    cells = [category, str(len(records)), f"{sum(right) / len(right):.0%}"]
    for score in scorers.values():
        scores = score(pictures, pairs)
        both = LEAST <= sum(right) <= len(right) - LEAST
        cells.append(shown(metric_agreement(auroc, scores, right)) if both else "")
        cells.append(shown(metric_agreement(kendall_tau, scores, kept)))
        preferred = hard_negative_accuracy(score, real)
        cells.append(shown(estimate({str(index): [value] for index, value in enumerate(preferred)})))
    return f"| {' | '.join(cells)} |"


def shown(found: Estimate) -> str:
    """Format an estimate."""
    return "" if found.mean != found.mean else f"{found.mean:.2f} ({found.low:.2f} to {found.high:.2f})"


if __name__ == "__main__":
    main()
