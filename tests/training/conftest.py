"""Toy runs of the real classes, small enough to train in a second or two, here or in other processes."""

import json
import os
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from toy_pipelines import pipeline

from lavibridge.recipes.recipe import Recipe, make_recipe

TOY: dict[str, dict[str, Any]] = {
    "language": {"kind": "llama", "source": "random", "max_tokens": 24},
    "vision": {"kind": "sd", "source": "random"},
    "connector": {"kind": "lavi"},
    "lora": {"language": {"rank": 4}, "vision": {"rank": 4}},
    "data": {"kind": "world", "scenes": 10, "size": 16},
    "training": {
        "steps": 4,
        "batch": 2,
        "warmup": 2,
        "device": "cpu",
        "preview_every": 0,
        "lr": {"language_lora": 1e-3, "connector": 1e-3, "vision_lora": 1e-3},
    },
    "preview": {"steps": 2, "prompts": ("a red circle", "a blue star")},
}


@pytest.fixture(scope="session")
def toy() -> Callable[..., Recipe]:
    """A toy recipe; sections given by name are laid over it."""

    def make(**sections: dict[str, Any]) -> Recipe:
        return make_recipe({name: {**value, **sections.get(name, {})} for name, value in TOY.items()})

    return make


@pytest.fixture(scope="session")
def own_encoder(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The choice of a toy Stable Diffusion with a text encoder of its own; nobody changes its folder."""
    folder = tmp_path_factory.mktemp("own-encoder")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        pipeline("sd").save_pretrained(folder)
    return {"kind": "sd", "source": str(folder)}


class Sessions:
    """`lavi` commands as real processes, forked from one that has imported everything (warm.py)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recipe = folder / "toy.yaml"
        self.recipe.write_text(yaml.safe_dump(json.loads(json.dumps(TOY))))
        self.warm = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("warm.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self.outputs: dict[int, Path] = {}
        assert self.warm.stdout is not None
        assert self.warm.stdout.readline() == "ready\n"

    def train(self, *settings: str, out: Path, resume: bool = False, processes: int = 1) -> list[int]:
        """Begin `lavi train` on the toy recipe in some processes, as a launcher would; their ids."""
        arguments = ["train", str(self.recipe), *settings, "--out", str(out), *(["--resume"] * resume)]
        port = str(free_port())
        return [
            self.begin(arguments, {} if processes == 1 else launched(rank, processes, port))
            for rank in range(processes)
        ]

    def trained(self, *settings: str, out: Path, resume: bool = False, processes: int = 1) -> Path:
        """The same, to its end; it has to go well."""
        children = self.train(*settings, out=out, resume=resume, processes=processes)
        codes = self.end(children)
        assert codes == [0] * processes, "\n\n".join(self.said(child) for child in children)
        return out

    def begin(self, arguments: Sequence[str], environment: dict[str, str], output: Path | None = None) -> int:
        """Begin one process, which writes to a file or, where it is given, a pipe; its id."""
        output = output or self.folder / f"output-{len(self.outputs)}.txt"
        child = self.ask({"begin": list(arguments), "environment": environment, "output": str(output)})
        self.outputs[child] = output
        return child

    def end(self, children: Sequence[int], seconds: float = 120) -> list[int]:
        """Wait for processes; their exit codes, below 0 where a signal ended them."""
        return [self.ask({"end": child, "seconds": seconds}) for child in children]

    def said(self, child: int) -> str:
        """What a process has said so far, on stdout and stderr."""
        return self.outputs[child].read_text() if self.outputs[child].exists() else ""

    def ask(self, question: dict[str, Any]) -> int:
        """One question to the warm process."""
        assert self.warm.stdin is not None
        assert self.warm.stdout is not None
        self.warm.stdin.write(json.dumps(question) + "\n")
        self.warm.stdin.flush()
        return int(self.warm.stdout.readline())

    def close(self) -> None:
        """End the warm process."""
        self.warm.communicate(timeout=60)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def launched(rank: int, processes: int, port: str) -> dict[str, str]:
    """What torchrun and `accelerate launch` tell a process."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }


@pytest.fixture(scope="session")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sessions]:
    """Real processes at the price of a fork."""
    made = Sessions(tmp_path_factory.mktemp("sessions"))
    yield made
    made.close()
