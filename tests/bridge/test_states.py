"""Every operation on a bridge in every state does what it says, or is refused in one line."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from added_lora import some_pairs, write_kohya
from torch import Tensor

from lavibridge import Bridge, BridgePipeline, export, lora, prompt_inputs, read_lora_file, to_diffusers
from lavibridge.core.contracts import Batch
from lavibridge.core.errors import LaviError, ModelError, RunError
from lavibridge.core.placement import Placement
from lavibridge.training.distributed.sharding import shard_bridge

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]
STATES = (
    "without LoRA",
    "with LoRA",
    "merged",
    "with a file's LoRA",
    "merged with a file's",
    "sharded",
    "outline",
    "quantised",
    "offloaded",
    "stored in 8 bits",
)
FINAL = STATES[-2:]
WHOLE = STATES[:5]
SMALL = {"rank": 2, "dropout": 0.0}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA file of another tool."""
    path = tmp_path_factory.mktemp("lora") / "other.safetensors"
    write_kohya(some_pairs(compose(None).vision.backbone, (3,), every=4), path, {}, alpha=2.0)
    return path


@pytest.fixture
def group() -> Iterator[None]:
    """A group of this process alone."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def compose(small: dict[str, float] | None, quantize: str | None = None) -> Bridge:
    models = [{"kind": kind, "source": "random", "quantize": quantize} for kind in ("clip", "sd")]
    bridge = Bridge.compose(*models, "linear", small, small)
    generator = torch.Generator().manual_seed(1)
    for values in bridge.trained_parameters().values():
        for value in values.values():
            value.data += 0.1 * torch.randn(value.shape, generator=generator)
    return bridge.eval()


def made(state: str, file: Path, blocks: Path | None = None) -> Bridge:
    """A bridge in the state; in all but the first it has the same LoRA. ``blocks`` is an empty folder."""
    if state == "outline":
        with torch.device("meta"):
            return Bridge.compose(
                {"kind": "clip", "source": "random"},
                {"kind": "sd", "source": "random"},
                "linear",
                SMALL,
                SMALL,
            )
    if state == "quantised":
        pytest.importorskip("bitsandbytes", reason="needs the extra `quantize`")
        return compose(SMALL, "4bit")
    bridge = compose(None if state == "without LoRA" else SMALL)
    if state in FINAL:
        storage = None if state == "offloaded" else torch.float8_e4m3fn
        placement = Placement(device=torch.device("cpu"), storage_dtype=storage)
        bridge.vision.finalize_weights(placement if storage else replace(placement, offload=blocks))
    if "file" in state:
        read_lora_file(bridge, file)
    if state.startswith("merged"):
        bridge.merge()
    if state == "sharded":
        shard_bridge(bridge, torch.device("cpu"), 1)
    return bridge


@torch.no_grad()
def drawn(bridge: Bridge) -> Tensor:
    """What the whole bridge makes of a prompt, before it becomes a picture of 256 levels."""
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    bridge.eval()
    return bridge.vision.predict(latents, torch.tensor([300]), bridge.condition(["a red circle"]))


def assert_same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=2e-5 * float(other.abs().max()))


def step(bridge: Bridge) -> None:
    batch = Batch(prompts=("a", "b"), names=("1", "2"), latents=torch.zeros(2, 4, 8, 8))
    bridge(batch, torch.tensor([1, 2]), torch.ones(2, 4, 8, 8)).sum().backward()


OPERATIONS: dict[str, Callable[[Bridge, Path, Path], object]] = {
    "draw": lambda bridge, file, out: (
        BridgePipeline(bridge)("a red circle", num_inference_steps=1, seed=0, height=32, width=32).images
    ),
    "save": lambda bridge, file, out: bridge.save_pretrained(out),
    "merge": lambda bridge, file, out: bridge.merge(),
    "merge twice": lambda bridge, file, out: bridge.merge().merge(),
    "unmerge": lambda bridge, file, out: bridge.unmerge(),
    "train": lambda bridge, file, out: step(bridge),
    "read a file": lambda bridge, file, out: read_lora_file(bridge, file),
    "leave LoRA out": lambda bridge, file, out: lora.disable_adapters(bridge.vision.backbone).__enter__(),
    "load LoRA": lambda bridge, file, out: lora.load_lora_state(
        bridge.vision.backbone, lora.lora_state(bridge.vision.backbone), "vision model"
    ),
    "add LoRA": lambda bridge, file, out: lora.inject_lora(
        bridge.vision.backbone, lora.LoraSettings(rank=2), bridge.vision.lora_targets, "vision model"
    ),
    "export peft": lambda bridge, file, out: export(bridge, "peft", out),
    "export kohya": lambda bridge, file, out: export(bridge, "kohya", out),
    "export comfyui": lambda bridge, file, out: export(bridge, "comfyui", out),
    "pipeline": lambda bridge, file, out: to_diffusers(bridge),
}
CHANGES = ("read a file", "add LoRA", "leave LoRA out")
"""What changes the function that is drawn with."""
ON_LORA = ("add LoRA", "leave LoRA out", "load LoRA")
"""What is done to the LoRA of a network."""
NEED_NO_WEIGHTS = ("add LoRA", "leave LoRA out", "load LoRA", "train")
"""What is done to an outline too, as `lavi plan` does."""
REFUSED = {
    **{
        (state, "train"): r"merged bridge cannot be trained.*unmerge\(\)"
        for state in STATES
        if "merged" in state
    },
    **{
        (state, "leave LoRA out"): r"merged .* left out.*unmerge\(\)" for state in STATES if "merged" in state
    },
    **{(state, "load LoRA"): r"merged .* replaced.*unmerge\(\)" for state in STATES if "merged" in state},
    **{(state, "add LoRA"): "has LoRA already" for state in STATES[1:]},
    **{(state, "read a file"): "already contains" for state in STATES if "file" in state},
    **{("without LoRA", f"export {form}"): "no vision LoRA" for form in ("kohya", "comfyui")},
    **{
        ("sharded", name): "sharded over processes"
        for name in OPERATIONS
        if name.startswith(("merge", "unmerge", "export", "pipeline", "read"))
    },
    **{("outline", name): "on the meta device" for name in OPERATIONS if name not in NEED_NO_WEIGHTS},
    **{
        ("quantised", name): "cannot merge LoRA into 'random', .* in 4 bits"
        for name in ("merge", "merge twice")
    },
    ("quantised", "read a file"): r"is quantised \(4bit\), and LoRA files change whole weights",
    **{
        (state, name): f"whose denoiser is {form}"
        for state, form in zip(FINAL, ("offloaded into files", "stored as float8_e4m3fn"), strict=True)
        for name in OPERATIONS
        if name not in ("draw", *ON_LORA)
    },
}
"""(state, operation) -> what is said. All others are done."""


@pytest.mark.parametrize("state", STATES)
def test_all_operations_do_what_they_say_or_are_refused_in_one_line(
    state: str, file: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """One after the other on one bridge, which draws the same after all of them."""
    if state == "sharded":
        request.getfixturevalue("group")
    bridge = made(state, file, tmp_path / "blocks")
    before = None if state == "outline" else drawn(bridge)
    for operation, run in OPERATIONS.items():
        out, match = tmp_path / operation, REFUSED.get((state, operation))
        if match is None and (operation in CHANGES or state == "outline"):
            continue
        if state in FINAL and operation in ON_LORA:  # of the network, which knows no placement
            continue
        if match is None:
            run(bridge, file, out)
        else:
            with pytest.raises(LaviError, match=match) as caught:
                run(bridge, file, out)
            assert "\n" not in str(caught.value), operation
            assert not out.exists(), operation
        if match is None and operation.endswith("merge"):
            assert_same(drawn(bridge), before)
        if state in WHOLE:
            bridge = bridge.merge() if state.startswith("merged") else bridge.unmerge()
    if before is not None:
        assert_same(drawn(bridge), before)


@pytest.mark.parametrize("state", [state for state in WHOLE if "file" not in state])
def test_a_file_is_read_in_every_state_with_the_same_effect(state: str, file: Path) -> None:
    bridge = made(state, file)
    before = drawn(bridge)
    read_lora_file(bridge, file)
    after = drawn(bridge)
    assert (after - before).abs().max() > 1e-3
    assert_same(drawn(bridge.unmerge() if bridge.is_merged else bridge.merge()), after)


@pytest.mark.parametrize("state", ["merged", "with a file's LoRA", "merged with a file's", "sharded"])
def test_what_is_saved_draws_the_same(
    state: str, file: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if state == "sharded":
        request.getfixturevalue("group")
    bridge = made(state, file)
    bridge.save_pretrained(tmp_path)
    loaded = Bridge.from_pretrained(tmp_path, device="cpu")
    assert not loaded.is_merged
    assert_same(drawn(loaded), drawn(bridge))
    if "merged" in state:
        assert_same(drawn(bridge.unmerge()), drawn(loaded))
        step(bridge)


@pytest.mark.parametrize("state", ["without LoRA", "with a file's LoRA", "merged with a file's"])
def test_what_is_exported_or_made_a_pipeline_draws_the_same(state: str, file: Path, tmp_path: Path) -> None:
    bridge = made(state, file)
    expected = drawn(bridge)
    assert_same(
        drawn(Bridge.from_pretrained(export(bridge, "peft", tmp_path / "peft"), device="cpu")), expected
    )
    pipe = to_diffusers(bridge)
    assert np.isfinite(
        pipe(**prompt_inputs(bridge, "a red circle"), num_inference_steps=1, output_type="np").images
    ).all()
    with torch.no_grad():
        latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        tokens = bridge.condition(["a red circle"]).tokens
        found = bridge.vision.backbone(latents, torch.tensor([300]), tokens, return_dict=False)[0]
    assert_same(found, expected)
    if state == "without LoRA":
        return
    other = Bridge(bridge.language, bridge.connector, compose(None).vision)
    read_lora_file(other, export(bridge, "kohya", tmp_path / "kohya"))
    assert_same(drawn(other), expected)


@pytest.mark.parametrize("lost", ["connector/model.safetensors", "vision_lora/adapter_model.safetensors"])
def test_a_saved_bridge_that_lacks_a_trained_part_is_refused(lost: str, tmp_path: Path) -> None:
    compose(SMALL).save_pretrained(tmp_path)
    (tmp_path / lost).unlink()
    with pytest.raises(RunError, match=f"{lost} is missing"):
        Bridge.from_pretrained(tmp_path)


def test_places_that_cannot_be_written_are_refused_before_anything_is(file: Path) -> None:
    bridge, content = compose(SMALL), file.read_bytes()
    with pytest.raises(RunError, match="is a file"):
        bridge.save_pretrained(file)
    with pytest.raises(RunError, match="exists already"):
        export(bridge, "peft", file)
    assert file.read_bytes() == content


def test_models_that_another_bridge_has_merged_are_known_to_be() -> None:
    merged = compose(SMALL)
    before = drawn(merged)
    merged.merge()
    other = Bridge(merged.language, merged.connector, merged.vision)
    assert other.is_merged
    with pytest.raises(ModelError, match="merged bridge cannot be trained"):
        step(other)
    assert_same(drawn(other.unmerge()), before)
    assert not merged.is_merged
