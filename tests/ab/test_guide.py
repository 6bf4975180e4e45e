"""The guide to user studies: its commands in their order, as printed."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lavibridge.cli.main import app

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "user-study.md"


def test_the_guide_works_as_printed(
    runs: tuple[Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for run, name in zip(runs, ("first", "second"), strict=False):
        shutil.copytree(run, tmp_path / "runs" / name)
    blocks = re.findall(r"^```bash\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), flags=re.M | re.S)
    for line in "".join(blocks).splitlines():
        command, _, into = line.partition(" > ")
        arguments = shlex.split(command)[1:]
        found = (
            [str(path) for each in arguments for path in sorted(Path().glob(each))] if "*" in command else []
        )
        arguments = [each for each in arguments if "*" not in each] + [
            each for each in found if "votes" in each
        ]
        done = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert done.exit_code == 0, f"{line}\n{done.output}"
        if into:
            Path(into).write_text(done.stdout, encoding="utf-8")
    assert Path("scores.json").is_file()
    assert "win rate" in done.stdout
