"""What an evaluation keeps is used again for the same bridge only, down to its last weight."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lavibridge import Bridge
from lavibridge.core.errors import RunError
from lavibridge.evaluation.run import evaluate

ASKED: dict[str, Any] = {"categories": ("one",), "limit": 2, "steps": 1, "guidance": 1.0}


def make_bridge(**language: Any) -> Bridge:
    torch.manual_seed(0)
    return Bridge.compose(
        language={"kind": "llama", "source": "random", **language},
        vision={"kind": "sd", "source": "random"},
        connector="linear",
        language_lora={"rank": 2},
        vision_lora={"rank": 2},
    ).eval()


def test_a_bridge_that_was_trained_on_is_another_however_alike_it_draws(tmp_path: Path) -> None:
    bridge = make_bridge()
    evaluate(bridge, "world", tmp_path, **ASKED)
    before = (tmp_path / "records.jsonl").read_bytes()
    with torch.no_grad():
        next(bridge.connector.parameters()).mul_(1 + 1e-6)
    with pytest.raises(RunError, match="another bridge"):
        evaluate(bridge, "world", tmp_path, **ASKED)
    assert (tmp_path / "records.jsonl").read_bytes() == before
