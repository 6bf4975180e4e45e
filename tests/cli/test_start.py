"""`lavi` starts fast and without torch, teaches in its help, and leaves with the promised exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lavibridge.cli.main import app
from lavibridge.core.errors import LaviError

VERBS = ("quickstart", "train", "generate", "evaluate", "report", "import", "export", "show", "doctor")
HEAVY = (
    "torch",
    "transformers",
    "diffusers",
    "peft",
    "accelerate",
    "numpy",
    "PIL",
    "matplotlib",
    "pydantic",
    "yaml",
)


def lavi(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lavibridge.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import json, sys\n"
        "sys.argv = ['lavi', '--help']\n"
        "from lavibridge.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "quickstart" in done.stdout
    loaded = set(json.loads(done.stderr.splitlines()[-1]))
    assert not loaded & set(HEAVY)


def test_a_bridge_imports_neither_peft_nor_the_loaders_of_diffusers() -> None:
    """They take seconds; both load where they are used."""
    program = "import sys, lavibridge.generation.pipeline; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"peft", "diffusers.loaders.single_file_utils"} & set(done.stdout.split())


def test_help_names_every_verb() -> None:
    done = lavi("--help")
    assert done.returncode == 0
    for verb in (*VERBS, "world"):
        assert f"\n  {verb} " in done.stdout


@pytest.mark.parametrize(
    "verb",
    [
        *VERBS,
        "world draw",
        "world check",
        "world pretrain",
        "cache",
        "cache fill",
        "cache verify",
        "pivot rank",
    ],
)
def test_the_help_of_a_verb_teaches_with_an_example(verb: str) -> None:
    done = CliRunner().invoke(app, [*verb.split(), "--help"])
    assert done.exit_code == 0
    assert f"\n  lavi {verb}" in done.stdout


def test_wrong_usage_exits_with_2() -> None:
    done = lavi("genrate")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr
    for arguments in (["train"], ["generate", "run", "a", "--steps", "none"]):
        found = CliRunner().invoke(app, arguments)
        assert (found.exit_code, found.stdout) == (2, "")
        assert found.stderr


def test_an_error_is_one_line_on_stderr_and_exits_with_1(tmp_path: Path) -> None:
    done = lavi("generate", str(tmp_path / "nothing"), "a red circle")
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        "report FOLDER",
        "train no-such-recipe --out FOLDER/run",
        "import lavi-bridge FOLDER --language a --vision b --out FOLDER/x",
        "export FOLDER --format peft --out FOLDER/y",
        "world draw --category nonsense --out FOLDER/drawn",
    ],
)
def test_what_cannot_be_done_is_an_error_of_ours(tmp_path: Path, arguments: str) -> None:
    with pytest.raises(LaviError):
        app(arguments.replace("FOLDER", str(tmp_path)).split(), standalone_mode=False)
    assert not list(tmp_path.iterdir())


def test_ctrl_c_exits_with_130(tmp_path: Path) -> None:
    program = (
        "import sys, typer\n"
        "from lavibridge.cli import main\n"
        "@main.app.command('wait')\n"
        "def wait() -> None:\n    raise KeyboardInterrupt\n"
        "sys.argv = ['lavi', 'wait']\n"
        "main.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert "Traceback" not in done.stderr


def test_world_draw_prints_a_list_to_train_on(tmp_path: Path) -> None:
    done = lavi("world", "draw", "--count", "3", "--category", "counting", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert len(lines) == 3
    for path, caption in lines:
        assert Path(path).is_file()
        assert caption


def test_the_version_is_data() -> None:
    import lavibridge

    assert lavi("--version").stdout.strip() == lavibridge.__version__
