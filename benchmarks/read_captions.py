"""How much faster a language model reads many captions without padding and without needless blocks.

    python benchmarks/read_captions.py                                               all installed models
    python benchmarks/read_captions.py mini-llama --captions 32 --rounds 1 --processes 1           a first try

The captions are the miniature world's. Each rung of the ladder adds one thing:

    32 at a time      `encode` on captions in the order of the data, every block run
    sorted            `encode_many`: captions of like length together, batches by number of tokens
    blocks read       only the blocks below the layer that is read, a third of the way up
    bfloat16          the weights in bfloat16, where this processor computes in it

All rungs take turns, round by round, in several processes one after the other; a ratio is the median of its
processes' with a 95 % bootstrap interval over them, and a process's is the median of its rounds'. The
relative error of a caption's features is |difference| / |features|, compared with the first rung.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter, process_time
from typing import Any

import torch
from record import record
from spread import PROCESSES, across, fresh

from lavibridge.core import registry
from lavibridge.core.contracts import ReadingSpec
from lavibridge.core.device import cpu_computes_bfloat16, set_threads
from lavibridge.core.errors import LaviError
from lavibridge.data.base import open_dataset
from lavibridge.data.pictures.rejected import RejectedPictures
from lavibridge.data.world import World
from lavibridge.language.base import LanguageModel

MODELS = ("mini-llama", "minilm", "smollm2")
FIRST = "32 at a time"
BATCH = 32

Features = dict[str, torch.Tensor]
Way = Callable[[Sequence[str]], Features]


def open_model(source: str, dtype: str = "float32") -> LanguageModel:
    """A language model by its source; LaviError where it is not installed."""
    family = registry.load_kind("language", registry.detect_kind("language", source))
    model: LanguageModel = family(family.Config(source=source, dtype=dtype))
    return model.eval()


def captions(count: int) -> list[str]:
    """Distinct captions of the miniature world, in the order of the data."""
    dataset = open_dataset("world", World.Config(scenes=count, size=64), RejectedPictures())
    return list(dict.fromkeys(dataset.sample(index).captions[0] for index in range(count)))


def in_order(model: LanguageModel, reading: ReadingSpec) -> Way:
    """Captions in their order, a fixed number at a time."""

    def read(texts: Sequence[str]) -> Features:
        found: Features = {}
        for start in range(0, len(texts), BATCH):
            batch = texts[start : start + BATCH]
            features = model.encode(batch, reading).split()
            found |= {text: each.hidden[0, 0] for text, each in zip(batch, features, strict=True)}
        return found

    return read


def sorted_by_length(model: LanguageModel, reading: ReadingSpec) -> Way:
    """Captions of like length together."""
    return lambda texts: {text: each.hidden[0, 0].clone() for text, each in model.encode_many(texts, reading)}


def ladder(model: LanguageModel, layer: int) -> dict[str, Way]:
    """The rungs by name; to read the last layer as well, every block has to run."""
    every, read = ReadingSpec(layers=(layer, -1)), ReadingSpec(layers=(layer,))
    ways = {
        FIRST: in_order(model, every),
        "sorted": sorted_by_length(model, every),
        "blocks read": sorted_by_length(model, read),
    }
    if cpu_computes_bfloat16():
        ways["bfloat16"] = sorted_by_length(open_model(model.config.source, "bfloat16"), read)
    return ways


@torch.no_grad()
def measure(source: str, count: int, rounds: int) -> dict[str, Any]:
    """Times of all rungs on one model, and how far their features lie from the first's."""
    set_threads()
    texts, model = captions(count), open_model(source)
    layer = (model.spec.layers - 1) // 3
    ways = ladder(model, layer)
    features = {name: read(texts) for name, read in ways.items()}  # also warms up
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for number in range(rounds):
        for name, read in ways.items():
            begun = perf_counter(), process_time()
            read(texts)
            times[name].append((perf_counter() - begun[0], process_time() - begun[1]))
        print(f"{source}: round {number + 1} of {rounds}", file=sys.stderr)
    return {
        "read": f"layer {layer} of {model.spec.layers - 1}, {len(texts)} captions",
        "seconds": compared(times, 0, len(texts)),
        "processor seconds": compared(times, 1, len(texts)),
        "relative error": {name: error(each, features[FIRST]) for name, each in features.items()},
    }


def compared(
    times: Mapping[str, Sequence[tuple[float, float]]], clock: int, count: int
) -> dict[str, dict[str, float]]:
    """Milliseconds a caption by one of the two clocks, and how many times faster than the first rung."""
    taken = {name: [each[clock] for each in rounds] for name, rounds in times.items()}
    return {
        "milliseconds a caption": {
            name: 1000 * statistics.median(values) / count for name, values in taken.items()
        },
        "times faster": {
            name: statistics.median([a / b for a, b in zip(taken[FIRST], values, strict=True)])
            for name, values in taken.items()
        },
    }


def error(found: Features, expected: Features) -> dict[str, float]:
    """Relative error over captions: median and largest."""
    errors = [
        float(torch.linalg.vector_norm(found[text] - each) / torch.linalg.vector_norm(each))
        for text, each in expected.items()
    ]
    return {"median": statistics.median(errors), "largest": max(errors)}


def main() -> None:
    """Measure and record; a model that is not installed is left out with the reason."""
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--captions", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=PROCESSES)
    options = parser.parse_args()
    result: dict[str, Any] = {"threads": set_threads(), "rounds": options.rounds}
    for source in options.models:
        try:
            registry.detect_kind("language", source)
        except LaviError as reason:
            print(f"{source} is left out: {reason}", file=sys.stderr)
            continue
        runs = [fresh(measure, source, options.captions, options.rounds) for _ in range(options.processes)]
        result[source] = across(runs)
    record("read_captions", result)


if __name__ == "__main__":
    main()
