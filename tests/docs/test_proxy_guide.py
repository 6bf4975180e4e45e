"""The guide of closed and remote models: its commands in their order, against a server on this machine."""

import json
import re
import shlex
from pathlib import Path

import pytest
from chat_server import KEY, chat_server
from PIL import Image
from typer.testing import CliRunner

from lavibridge.cli.main import app

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "proxy.md"
SHORT = {
    "generate": ("--steps", "2"),
    "evaluate": ("--steps", "2"),
    "train": ("data.scenes=32", "training.steps=1", "training.batch=2", "training.align=null"),
}
REVISED = "one red circle, please, on a plain background"


@pytest.mark.usefixtures("one_thread")
def test_the_whole_walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAVIBRIDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with chat_server() as chat:
        here = re.sub(
            r"https?://(localhost:11434|api\.openai\.com)/v1",
            chat.endpoint,
            GUIDE.read_text(encoding="utf-8"),
        )
        ((name, content),) = re.findall(r"^```yaml file=(\S+)\n(.*?)^```", here, flags=re.M | re.S)
        Path(name).write_text(content, encoding="utf-8")
        commands = [
            line
            for block in re.findall(r"^```bash\n(.*?)^```", here, flags=re.M | re.S)
            for line in block.split("\n")
        ]
        for line in filter(None, commands):
            arguments = shlex.split(line)[1:]
            result = CliRunner().invoke(app, [*arguments, *SHORT[arguments[0]]], catch_exceptions=False)
            assert result.exit_code == 0, f"{line}\n{result.output}"
    for folder in ("pictures", "pictures/proxy"):
        (path,) = Path(folder).glob("*.png")
        with Image.open(path) as picture:
            told = picture.text  # type: ignore[attr-defined]
        assert (told["prompt"], told["revised_prompt"]) == ("one red circle, please", REVISED)
    records = [json.loads(line) for line in Path("evaluation/proxy/records.jsonl").read_text().splitlines()]
    assert len(records) == 2
    assert not [each for each in records if "on a plain background" in each["prompt"]]
    with Image.open(Path("evaluation/proxy") / records[0]["file"]) as picture:
        assert picture.text["revised_prompt"].endswith("on a plain background")  # type: ignore[attr-defined]
    assert len(chat.prompts) == len(set(map(str, chat.requests)))  # each prompt once by model and instruction
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
