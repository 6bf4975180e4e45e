"""Keeps revised prompts on disk, so that each prompt is revised once and always reads the same.

    $LAVIBRIDGE_CACHE/proxy/MODEL-HASH/settings.json     endpoint, model, instruction, sampling: no key
    $LAVIBRIDGE_CACHE/proxy/MODEL-HASH/prompts.jsonl     {"prompt", "text"}, or {"prompt", "refusal"}

HASH covers all of settings.json. Processes append under a lock, and the first text of a prompt counts, so
that all processes of a training read the same. Copy the folder to another machine to work there without a
network.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lavibridge.core.errors import LaviError
from lavibridge.core.files import parse_json, write_json
from lavibridge.core.identity import card_hash
from lavibridge.core.lock import hold_lock
from lavibridge.core.paths import cache_folder
from lavibridge.language.parts.chat_completions import Completion

_PROMPTS, _SETTINGS = "prompts.jsonl", "settings.json"


class RevisedPrompts:
    """The revised prompts of one remote model with one instruction."""

    def __init__(self, model: str, card: Mapping[str, Any]) -> None:
        slug = re.sub(r"[^A-Za-z0-9.]+", "-", model).strip("-.")[:60] or "model"
        self.folder: Path = cache_folder() / "proxy" / f"{slug}-{card_hash(card)}"
        self._card = dict(card)
        self._found: dict[str, Completion] = {}
        self._position = 0
        self.read_new()

    def get(self, prompt: str) -> Completion | None:
        """Return what is kept of a prompt, or None."""
        return self._found.get(prompt)

    def read_new(self) -> None:
        """Read the lines that were appended since the last call, by any process; skips damaged lines."""
        path = self.folder / _PROMPTS
        if not path.is_file():
            return
        with path.open("rb") as file:
            file.seek(self._position)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._position += len(whole)
        for line in whole.splitlines():
            try:
                record = parse_json(line.decode("utf-8"), str(path))
                self._learn(record["prompt"], Completion(record.get("text"), record.get("refusal")))
            except (LaviError, ValueError, KeyError, TypeError, AttributeError):
                continue  # cut off by a crash: the prompt is revised again

    def add(self, prompt: str, completion: Completion) -> None:
        """Append a completion; keeps what another process appended first."""
        with hold_lock(self.folder, waits=f"another process is writing to {self.folder}"):
            if not (self.folder / _SETTINGS).is_file():
                write_json(self.folder / _SETTINGS, self._card)
            self.read_new()
            if self._learn(prompt, completion):
                self._append({"prompt": prompt} | completion.record())

    def _learn(self, prompt: str, completion: Completion) -> bool:
        """Remember a completion unless there is a better one: the first text, or the first refusal."""
        before = self._found.get(prompt)
        if before is not None and (before.text is not None or completion.text is None):
            return False
        self._found[prompt] = completion
        return True

    def _append(self, record: Mapping[str, str]) -> None:
        """Append one line; completes a line that a crash cut off."""
        line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
        with (self.folder / _PROMPTS).open("ab+") as file:
            end = file.seek(0, 2)
            if end > self._position:  # the rest of a line without its end
                line = b"\n" + line
            file.write(line)
            self._position = end + len(line)
