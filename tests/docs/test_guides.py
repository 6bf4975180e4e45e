"""The guide that adds one of each: its files, found through their entry points, work in a fresh process."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "add-a-model.md"


def test_one_file_each_and_nothing_else_is_edited(tmp_path: Path) -> None:
    text = GUIDE.read_text(encoding="utf-8")
    files = dict(re.findall(r"^```\w+ file=(\S+)\n(.*?)^```", text, flags=re.M | re.S))
    assert {
        "scratch/olmo2.py",
        "scratch/ovis_image.py",
        "scratch/shared.py",
        "scratch/p2.py",
        "scratch/dpm3.py",
        "try_it.py",
    } < set(files)
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")
    project = tomllib.loads(files["pyproject.toml"])["project"]
    about = tmp_path / f"{project['name']}-{project['version']}.dist-info"  # what installing it leaves
    about.mkdir()
    (about / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
    groups = [
        f"[{group}]\n" + "\n".join(f"{kind} = {place}" for kind, place in kinds.items())
        for group, kinds in project["entry-points"].items()
    ]
    (about / "entry_points.txt").write_text("\n".join(groups))
    done = subprocess.run(
        [sys.executable, "try_it.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "['connector', 'language_lora', 'vision_lora'] (" in done.stdout
