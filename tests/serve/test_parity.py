"""The command, Python and the server draw the same picture: one driver, whatever calls it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lavibridge import Bridge, BridgePipeline
from lavibridge.cli.main import app
from lavibridge.core import registry
from lavibridge.serve.engine.image_generation import ImageGeneration, advance_generations
from lavibridge.serve.engine.request import Request
from lavibridge.serve.engine.served_model import ServedModel

pytestmark = pytest.mark.usefixtures("one_thread")
PROMPT = "a (red:1.3) circle beside a boat"
SMALL: dict[str, dict[str, Any]] = {
    "resampler": {"latents": 3, "blocks": 1, "heads": 4},
    "ella": {"latents": 3, "blocks": 1, "heads": 4, "time_channels": 8},
    "ella_zero": {"latents": 3, "blocks": 1, "heads": 4, "time_channels": 8},
    "query": {"queries": 3, "blocks": 1},
    "dual_condition": {"queries": 3, "blocks": 1},
    "stacked_query": {"queries": 3, "blocks": 1, "width": 16, "heads": 2},
    "refiner": {"blocks": 1},
}
CONNECTORS = [kind for kind in registry.kinds("connectors") if kind != "identity"]  # it needs equal widths


def compose(connector: str, vision: str = "pixart") -> Bridge:
    """A toy bridge as if trained."""
    options, small = {"kind": connector, **SMALL.get(connector, {})}, {"rank": 2}
    toys = ({"kind": kind, "source": "random"} for kind in ("llama", vision))
    bridge = Bridge.compose(*toys, options, small, small)
    rng = torch.Generator().manual_seed(1)
    for value in bridge.trained_parameters()["connector"].values():
        value.data += 0.2 * torch.randn(value.shape, generator=rng)
    return bridge.eval()


def requests(quality: str, weighting: bool) -> list[Request]:
    """The same picture, then one of another length and number of steps."""
    common: dict[str, Any] = {
        "model": "toy",
        "negative_prompt": "",
        "guidance_scale": 4.0,
        "quality": quality,
    }
    common |= {"width": 32, "height": 32, "prompt_weighting": weighting}
    return [
        Request(prompt=PROMPT, seed=3, num_inference_steps=3, **common),
        Request(prompt="two", seed=4, num_inference_steps=5, **common),
    ]


@torch.inference_mode()
def serve(model: ServedModel, wanted: list[Request]) -> Image.Image:
    """The first request's picture, drawn by the server's engine beside the others."""
    drawings = [ImageGeneration(request, model) for request in wanted]
    while not drawings[0].is_finished:
        advance_generations([drawing for drawing in drawings if not drawing.is_finished])
        assert drawings[0].is_finished or drawings[0].preview().size == (32, 32)
    return drawings[0].picture()


@pytest.mark.parametrize("quality", ["exact", "high", "fast"])
@pytest.mark.parametrize("connector", CONNECTORS)
def test_command_python_and_server_draw_the_same_bits(connector: str, quality: str, tmp_path: Path) -> None:
    """With calls of its own a served picture has Python's bits; in shared calls, Python's in that layout."""
    weighting = connector not in ("query", "dual_condition", "stacked_query")  # whose prompts take no weights
    compose(connector).save_pretrained(tmp_path / "toy")
    pipe = BridgePipeline.from_pretrained(tmp_path / "toy", device="cpu")
    options: dict[str, Any] = {"num_inference_steps": 3, "guidance_scale": 4.0, "seed": 3, "quality": quality}
    options |= {"batch_size": 1, "prompt_weighting": weighting}
    expected = pipe(PROMPT, **options).images[0]

    model, wanted = ServedModel("toy", pipe.bridge, 2), requests(quality, weighting)
    shared = model.layout
    assert (model.least_rows is None) == pipe.bridge.connector.per_block
    if model.least_rows is not None:
        found = serve(model, wanted)
        assert found.tobytes() == BridgePipeline(pipe.bridge, shared)(PROMPT, **options).images[0].tobytes()
        assert np.abs(np.asarray(found, int) - np.asarray(expected, int)).max() <= 1
    model.least_rows = None
    assert serve(model, wanted).tobytes() == expected.tobytes()

    arguments = ["--steps", "3", "--guidance", "4", "--seed", "3", "--quality", quality, "--batch-size", "1"]
    arguments += [] if weighting else ["--no-prompt-weighting"]
    app(
        ["generate", str(tmp_path / "toy"), PROMPT, "--out", str(tmp_path / "out"), *arguments],
        standalone_mode=False,
    )
    (path,) = (tmp_path / "out").glob("*.png")
    with Image.open(path) as picture:
        assert picture.tobytes() == expected.tobytes()


@pytest.mark.parametrize("connector", ["lavi", "ella"])
def test_the_connector_computes_outside_of_autocast(connector: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In both layouts: its linear layers stay float32 while those of the denoiser round to bfloat16."""
    monkeypatch.setattr("lavibridge.generation.request_state.quality_gains_by_bfloat16", lambda device: True)
    bridge = compose(connector)
    dtypes: dict[str, set[torch.dtype]] = {"connector": set(), "denoiser": set()}

    def watch(name: str, layer: nn.Module) -> None:
        layer.register_forward_hook(lambda _, args, output: dtypes[name].add(output.dtype))

    for name, part in (("connector", bridge.connector), ("denoiser", bridge.vision.backbone)):
        for layer in part.modules():
            if isinstance(layer, nn.Linear):
                watch(name, layer)
    pipe, model = BridgePipeline(bridge), ServedModel("toy", bridge, 2)
    for draw in (
        lambda: pipe(PROMPT, num_inference_steps=2, guidance_scale=4.0, seed=3, quality="fast"),
        lambda: serve(model, requests("fast", False)),
    ):
        for found in dtypes.values():
            found.clear()
        draw()
        assert dtypes["connector"] == {torch.float32}
        assert torch.bfloat16 in dtypes["denoiser"]
