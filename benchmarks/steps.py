"""Measures how many steps each sampler needs: the share of right images of mini-sd, as a curve.

    python benchmarks/steps.py [FOLDER]        images go to FOLDER (runs/steps), which a later run continues

mini-sd with its own text encoder and guidance in every step generates 100 prompts each of one and of two
objects, with the same prompts and noises for every sampler. The curve goes to docs/steps.png.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from draw import GUIDANCE, PROMPTS, Drawing
from record import record

from lavibridge import BridgePipeline
from lavibridge.core.device import set_threads
from lavibridge.evaluation.compare import compare_evaluations
from lavibridge.evaluation.evaluate import evaluate

SAMPLERS = ("unipc", "unipc_trailing", "dpm", "ddim")
STEPS = (6, 8, 10, 12, 16, 20, 30, 50)
CATEGORIES = ("one", "two")
CHART = Path(__file__).parents[1] / "docs" / "steps.png"


def measure(folder: Path) -> dict[str, dict[int, Any]]:
    """Return the share of right images by sampler and steps, and the difference from the published way."""
    bridge, found = (
        BridgePipeline.native("mini-sd", device="cpu").bridge,
        {sampler: dict[int, Any]() for sampler in SAMPLERS},
    )
    published = folder / f"{SAMPLERS[0]}-{STEPS[-1]}"
    for steps in reversed(STEPS):
        for sampler in SAMPLERS:
            out = folder / f"{sampler}-{steps}"
            results = evaluate(
                Drawing(bridge, sampler=sampler),
                "world",
                out,
                categories=CATEGORIES,
                limit=PROMPTS,
                num_inference_steps=steps,
                guidance_scale=GUIDANCE,
            )
            found[sampler][steps] = {
                "right": results["metrics"]["world"]["all"],
                "difference": compare_evaluations(out, published)["metrics"]["world"],
            }
    return found


def draw(found: Mapping[str, Mapping[int, Any]]) -> None:
    """Plot the shares against the steps."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 3.6), dpi=110)
    for place, (sampler, points) in enumerate(found.items()):
        rights = [points[step]["right"] for step in STEPS]
        shares = [100 * right["mean"] for right in rights]
        reach = [
            [abs(100 * right[end] - share) for right, share in zip(rights, shares, strict=True)]
            for end in ("low", "high")
        ]
        at = [index + 0.08 * (place - 1.5) for index in range(len(STEPS))]
        axes.errorbar(
            at, shares, reach, marker="os^D"[place], elinewidth=0.8, label=sampler.replace("_", ", ")
        )
    axes.set_xticks(range(len(STEPS)), [str(each) for each in STEPS])
    axes.set(xlabel="steps", ylabel="pictures right, %", ylim=(50, 100))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="lower right")
    figure.tight_layout()
    figure.savefig(CHART, metadata={"Software": None})


def main() -> None:
    """Generate, score and record."""
    threads = set_threads()
    found = measure(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/steps"))
    draw(found)
    record("steps", {"threads": threads, "prompts": PROMPTS, "samplers": found})


if __name__ == "__main__":
    main()
