"""Every part of the benchmark at published sizes runs at toy size, the GPU's part on the CPU."""

import json
from pathlib import Path
from typing import Any

import pytest
import true_gpu
import true_size

from lavibridge.plan.devices import GPUS


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning:diffusers")
def test_every_part_runs_at_toy_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("bitsandbytes", reason="needs the extra `quantize`")
    found: dict[str, Any] = {}
    monkeypatch.setattr(true_size, "fresh", lambda work, *given: work(*given))
    monkeypatch.setattr(true_size, "record", lambda name, result: found.update(result))
    true_size.main(["--widths", "toys"])
    assert json.dumps(found)
    rows = found["cpu"]["t5-large_sd14"]
    assert list(rows) == list(true_size.WORKS)
    assert all(row["peak"] > 0.1 and row["plan"] > 0.5 for row in rows.values())
    assert rows["train from cached features"]["plan"] < rows["train"]["plan"]
    gpu = found["gpu"]
    for name in true_gpu.PAIRS:
        assert gpu[f"training {name}"]["largest power of two in 24 GiB"] == 2
        assert all(row["TFLOP/s"] > 0 for row in gpu[f"training {name}"]["batches"].values())
    assert gpu["4 bits"]["fits in 16 GiB"]
    assert gpu["drawing"].keys() == {"as it is", "compiled"}


def test_a_card_is_known_by_its_driver_s_name() -> None:
    assert true_gpu.known_card("NVIDIA H200") is GPUS["h200"]
    assert true_gpu.known_card("NVIDIA A100-SXM4-80GB") is not None
    assert true_gpu.known_card("NVIDIA GeForce RTX 4090") is GPUS["rtx4090"]
    assert true_gpu.known_card("Radeon") is None
