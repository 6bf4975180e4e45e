"""`BridgePipeline` as a user of Diffusers calls it: prompts, noise, sizes, outputs, callbacks, files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor

from lavibridge import Bridge, BridgePipeline
from lavibridge.core.errors import ModelError, RecipeError, RunError
from lavibridge.generation.noise import initial_noise, noise_source

SHAPE = (4, 8, 8)


def compose(vision: str = "sd", connector: str = "lavi", **options: Any) -> Bridge:
    """A toy bridge whose prompts make a difference that can be seen."""
    small = {"rank": 2}
    bridge = Bridge.compose(
        {"kind": "t5", "source": "random", **options},
        {"kind": vision, "source": "random"},
        connector,
        small,
        small,
    )
    rng = torch.Generator().manual_seed(1)
    for values in bridge.trained_parameters().values():
        for value in values.values():
            value.data = 0.3 * torch.randn(value.shape, generator=rng)
    return bridge.eval()


@pytest.fixture(scope="module")
def pipe() -> BridgePipeline:
    return BridgePipeline(compose())


def levels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, np.int16)


def test_what_a_user_of_diffusers_types(tmp_path: Path) -> None:
    compose().save_pretrained(tmp_path)

    pipe = BridgePipeline.from_pretrained(tmp_path, device="cpu")
    image = pipe(
        "a red circle",
        num_inference_steps=2,
        guidance_scale=4.0,
        generator=torch.Generator().manual_seed(0),
    ).images[0]

    assert isinstance(image, Image.Image)
    assert (image.mode, image.size) == ("RGB", (32, 32))
    assert pipe.bridge.is_merged
    again = pipe("a red circle", num_inference_steps=2, guidance_scale=4.0, seed=0)
    assert again.images[0].tobytes() == image.tobytes()
    assert again[0] is again.images


@pytest.mark.usefixtures("one_thread")
def test_images_of_each_prompt_come_in_order_from_seed_and_seed_plus_one(pipe: BridgePipeline) -> None:
    options: dict[str, Any] = {"num_inference_steps": 2, "guidance_scale": 3.0}
    images = pipe(["a cat", "two boats"], num_images_per_prompt=2, seed=5, **options).images
    expected = [
        pipe(prompt, seed=seed, **options).images[0] for prompt in ("a cat", "two boats") for seed in (5, 6)
    ]
    for image, other in zip(images, expected, strict=True):
        assert np.abs(levels(image) - levels(other)).max() <= 1
    assert np.abs(levels(images[0]) - levels(images[1])).max() > 1


def test_one_generator_draws_the_noise_that_diffusers_draws() -> None:
    ours = noise_source(SHAPE, 3, 1, None, torch.Generator().manual_seed(3))(range(3))
    assert torch.equal(ours, randn_tensor((3, *SHAPE), generator=torch.Generator().manual_seed(3)))
    several = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    assert torch.equal(noise_source(SHAPE, 2, 1, None, several)(range(2)), initial_noise(SHAPE, (3, 4)))
    torch.manual_seed(7)
    first = noise_source(SHAPE, 1, 1, None, None)(range(1))
    torch.manual_seed(7)
    assert torch.equal(noise_source(SHAPE, 1, 1, None, None)(range(1)), first)
    assert not torch.equal(noise_source(SHAPE, 1, 1, None, None)(range(1)), first)


def test_negative_prompts_are_one_or_one_for_each(pipe: BridgePipeline) -> None:
    options: dict[str, Any] = {"num_inference_steps": 2, "guidance_scale": 5.0, "seed": 0}
    prompts = ["a cat", "a cat"]
    same, mixed = (
        pipe(prompts, negative, **options).images for negative in ("blue", ["blue", "a very long one"])
    )
    assert np.abs(levels(same[0]) - levels(same[1])).max() <= 1
    assert np.abs(levels(same[0]) - levels(mixed[0])).max() <= 1
    assert np.abs(levels(same[1]) - levels(mixed[1])).max() > 1
    with pytest.raises(RecipeError, match="found 3 for 2 prompts"):
        pipe(prompts, ["a", "b", "c"], **options)


def test_outputs_are_pil_arrays_tensors_or_latents(pipe: BridgePipeline) -> None:
    found: dict[str, Any] = {
        kind: pipe(
            ["a", "b", "c"],
            num_inference_steps=1,
            seed=0,
            batch_size=2,
            height=32,
            width=64,
            output_type=kind,
        ).images
        for kind in ("pil", "np", "pt", "latent")
    }
    assert [image.size for image in found["pil"]] == [(64, 32)] * 3
    assert found["np"].shape == (3, 32, 64, 3)
    assert (found["np"].dtype, found["np"].min() >= 0, found["np"].max() <= 1) == (np.float32, True, True)
    assert np.array_equal((found["np"][1] * 255).round().astype(np.uint8), np.asarray(found["pil"][1]))
    assert torch.equal(found["pt"].permute(0, 2, 3, 1), torch.from_numpy(found["np"]))
    decoded = pipe.bridge.vision.decode(found["latent"])
    torch.testing.assert_close((decoded.clamp(-1, 1) + 1) / 2, found["pt"], atol=1e-4, rtol=0)
    with pytest.raises(RecipeError, match="did you mean 'pil'"):
        pipe("a", output_type="pli")


def test_a_callback_sees_each_step_and_may_replace_the_latents(pipe: BridgePipeline) -> None:
    steps: list[tuple[int, float]] = []

    def watch(own: BridgePipeline, step: int, timestep: Tensor, kwargs: dict[str, Any]) -> dict[str, Any]:
        assert own is pipe
        assert kwargs["latents"].shape[1:] == SHAPE
        steps.append((step, float(timestep)))
        return {}

    def erase(own: BridgePipeline, step: int, timestep: Tensor, kwargs: dict[str, Any]) -> dict[str, Any]:
        return {"latents": torch.zeros_like(kwargs["latents"])}

    plain = pipe("a", num_inference_steps=3, seed=0, output_type="latent").images
    watched = pipe(
        "a", num_inference_steps=3, seed=0, output_type="latent", callback_on_step_end=watch
    ).images
    assert torch.equal(watched, plain)
    assert [step for step, _ in steps] == [0, 1, 2]
    assert steps[0][1] > steps[1][1] > steps[2][1]
    erased = pipe("a", num_inference_steps=3, seed=0, output_type="latent", callback_on_step_end=erase).images
    assert not erased.any()
    with pytest.raises(RecipeError, match=r"returned latents of shape \(1, 1\)"):
        pipe(
            "a", num_inference_steps=1, seed=0, callback_on_step_end=lambda *_: {"latents": torch.zeros(1, 1)}
        )


def test_drawing_leaves_the_bridge_in_its_mode() -> None:
    bridge = compose().train()
    bridge.vision.eval()
    BridgePipeline(bridge)("a", num_inference_steps=1, seed=0)
    assert (bridge.connector.training, bridge.vision.backbone.training) == (True, False)


def test_what_cannot_be_drawn_is_refused() -> None:
    pipe = BridgePipeline(compose())
    for prompts in ([], [""], ["a cat", "  "]):
        with pytest.raises(RecipeError, match="describe an image"):
            pipe(prompts)
    for error, match, options in (
        (RecipeError, "one seed, or one for each image", {"seed": [1]}),
        (RecipeError, "one generator, or one for each", {"generator": [torch.Generator()]}),
        (RecipeError, "not both", {"generator": torch.Generator(), "seed": 1}),
        (RecipeError, "found -1", {"seed": -1}),
        (RecipeError, "num_inference_steps must be from 1", {"num_inference_steps": 0}),
        (RecipeError, "batch_size must be 1", {"batch_size": 0}),
        (RecipeError, "num_images_per_prompt must be 1", {"num_images_per_prompt": 0}),
        (RecipeError, "above 0 and below 1", {"step_cache": 2.0}),
        (ModelError, "multiples", {"height": 33}),
    ):
        with pytest.raises(error, match=match):
            pipe(["a", "b"], **options)  # type: ignore[arg-type]


def test_long_prompts_are_drawn_with_a_warning(
    pipe: BridgePipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(pipe(["x" * 10_000], num_inference_steps=1, seed=0).images) == 1
    assert "reads its first 512 tokens" in " ".join(capsys.readouterr().err.split())


def test_a_shipped_vision_model_is_opened_and_a_mistyped_run_refused() -> None:
    pipe = BridgePipeline.from_pretrained("mini-sd", device="cpu")
    assert pipe("a red circle", num_inference_steps=1, seed=0).images[0].size == (64, 64)
    with pytest.raises(RunError, match="there is no folder"):
        BridgePipeline.from_pretrained("./runs/no-such-run")


def test_another_number_format_when_loading_and_afterwards(tmp_path: Path) -> None:
    compose().save_pretrained(tmp_path)
    loaded = BridgePipeline.from_pretrained(tmp_path, device="cpu", dtype=torch.bfloat16)
    cast = BridgePipeline(Bridge.from_pretrained(tmp_path, device="cpu").merge()).to(dtype="bfloat16")
    for pipe in (loaded, cast):
        bridge = pipe.bridge
        assert next(bridge.vision.backbone.parameters()).dtype == torch.bfloat16
        assert (bridge.vision.config.dtype, bridge.language.config.dtype) == ("bfloat16", "bfloat16")
        assert next(bridge.connector.parameters()).dtype == torch.float32
        assert pipe("a cat", num_inference_steps=2, seed=0).images
    back = cast.to("cpu").to(torch.float32)
    assert back is cast
    assert next(back.bridge.vision.backbone.parameters()).dtype == torch.float32
    with pytest.raises(RecipeError, match="'float8' is not one of"):
        cast.to(dtype="float8")
