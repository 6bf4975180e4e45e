"""What every vision family promises, on the real classes at toy size."""

import json
from pathlib import Path

import pytest
import torch

from lavibridge.core import registry
from lavibridge.core.contracts import Conditioning
from lavibridge.core.errors import ModelError
from lavibridge.vision.base import VisionModel

KINDS = registry.kinds("vision")
_BUILT: dict[str, VisionModel] = {}


def toy(kind: str, **options: object) -> VisionModel:
    family = registry.load("vision", kind)
    return family(family.Config(source="random", **options))  # type: ignore[no-any-return]


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest) -> VisionModel:
    if request.param not in _BUILT:
        _BUILT[request.param] = toy(request.param)
    return _BUILT[request.param]


def conditioning(model: VisionModel, batch: int, tokens: int, seed: int = 0) -> Conditioning:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(batch, tokens, model.spec.context, generator=generator)
    return Conditioning(tokens=values, mask=torch.ones(batch, tokens, dtype=torch.bool))


def noisy(model: VisionModel, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, *model.latent_shape(32, 32), generator=torch.Generator().manual_seed(1))


def save(model: VisionModel, folder: Path) -> None:
    name = "unet" if registry.kind_of("vision", model) == "sd" else "transformer"
    model.backbone.save_pretrained(folder / name)  # type: ignore[operator]
    model.autoencoder.save_pretrained(folder / "vae")  # type: ignore[operator, union-attr]
    model.scheduler.save_pretrained(folder / "scheduler")


def test_prediction_has_the_latents_shape_and_obeys_its_inputs(model: VisionModel) -> None:
    xt, given = noisy(model), conditioning(model, 2, 5)
    t = torch.tensor([10, 700])
    prediction = model.predict(xt, t, given)
    assert prediction.shape == xt.shape
    assert (prediction - model.predict(xt, t, conditioning(model, 2, 5, seed=2))).abs().max() > 1e-4
    assert (prediction - model.predict(xt, torch.tensor([10, 300]), given))[1].abs().max() > 1e-4


def test_attend_is_what_the_layer_does_inside_the_denoiser(model: VisionModel) -> None:
    """With a mask, and as the layers get the tokens there: projected, where the family projects them."""
    given = conditioning(model, 2, 6)
    given = Conditioning(tokens=given.tokens, mask=torch.tensor([[True] * 6, [True] * 4 + [False] * 2]))
    assert model.spec.blocks
    for name, block in model.spec.blocks.items():
        seen: list[tuple[torch.Tensor, torch.Tensor]] = []

        def note(module, args, options, output, seen=seen) -> None:  # type: ignore[no-untyped-def]
            seen.append((args[0] if args else options["hidden_states"], output))

        hook = model.backbone.get_submodule(name).register_forward_hook(note, with_kwargs=True)
        with torch.no_grad():
            model.predict(noisy(model), torch.tensor([10, 700]), given)
        hook.remove()
        [(asked, answered)] = seen
        assert asked.shape[-1] == block.width
        torch.testing.assert_close(model.attend(name, asked, given), answered)


def test_masked_tokens_are_never_seen(model: VisionModel) -> None:
    xt, t = noisy(model), torch.tensor([10, 700])
    short, long = conditioning(model, 2, 5), conditioning(model, 2, 9, seed=3)
    tokens = long.tokens.clone()
    tokens[:, :5] = short.tokens
    mask = torch.arange(9).expand(2, 9) < 5
    padded = Conditioning(tokens=tokens, mask=mask)
    torch.testing.assert_close(
        model.predict(xt, t, padded), model.predict(xt, t, short), atol=1e-5, rtol=1e-4
    )


def test_samples_of_a_batch_are_apart(model: VisionModel) -> None:
    xt, t, given = noisy(model), torch.tensor([10, 700]), conditioning(model, 2, 5)
    both = model.predict(xt, t, given)
    second = model.predict(xt[1:], t[1:], Conditioning(tokens=given.tokens[1:], mask=given.mask[1:]))
    torch.testing.assert_close(both[1:], second, atol=1e-5, rtol=1e-4)


def test_latents_are_scaled_by_the_autoencoders_own_factor(model: VisionModel) -> None:
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    mean, std = model.encode_moments(images)
    distribution = model.autoencoder.encode(images).latent_dist  # type: ignore[operator, union-attr]
    torch.testing.assert_close(mean, distribution.mean.detach() * 0.3)
    torch.testing.assert_close(std, distribution.std.detach() * 0.3)
    first, again = (model.encode(images, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, again)
    assert model.decode(first).shape == images.shape
    expected = model.autoencoder.decode(mean / 0.3).sample.detach()  # type: ignore[operator, union-attr]
    torch.testing.assert_close(model.decode(mean), expected)


def test_sizes(model: VisionModel) -> None:
    assert model.latent_shape(model.default_size, model.default_size) == (4, 8, 8)
    assert model.latent_shape(32, 64) == (4, 8, 16)
    assert model.predict(torch.randn(1, 4, 8, 16), torch.tensor([3]), conditioning(model, 1, 4)).shape == (
        1,
        4,
        8,
        16,
    )
    for height, width in ((33, 32), (0, 32), (32, 30), (2, 2)):
        with pytest.raises(ModelError, match="multiples"):
            model.latent_shape(height, width)


def test_schedule(model: VisionModel) -> None:
    assert model.alphas.shape == model.sigmas.shape == model.times.shape == (1000,)
    assert bool((model.alphas.diff() < 0).all())
    assert bool((model.sigmas.diff() > 0).all())


def test_spec_names_the_blocks_that_read_tokens(model: VisionModel) -> None:
    modules = dict(model.backbone.named_modules())
    assert model.spec.blocks
    for name, block in model.spec.blocks.items():
        asks = modules[name].to_q
        assert (asks.in_features, asks.out_features) == (block.width, block.inner)  # type: ignore[union-attr]


def test_saved_folder_is_detected_and_read(model: VisionModel, tmp_path: Path) -> None:
    save(model, tmp_path)
    kind = registry.kind_of("vision", model)
    assert registry.detect("vision", str(tmp_path)) == kind
    family = registry.load("vision", kind)
    loaded = family(family.Config(source=str(tmp_path)))
    xt, t, given = noisy(model), torch.tensor([10, 700]), conditioning(model, 2, 5)
    torch.testing.assert_close(loaded.predict(xt, t, given), model.predict(xt, t, given))


def test_prediction_type_is_read_from_the_scheduler(tmp_path: Path) -> None:
    model = toy("sd")
    save(model, tmp_path)
    place = tmp_path / "scheduler" / "scheduler_config.json"
    settings = json.loads(place.read_text())
    family = registry.load("vision", "sd")
    place.write_text(json.dumps(settings | {"prediction_type": "v_prediction"}))
    assert family(family.Config(source=str(tmp_path))).prediction_type == "v_prediction"
    place.write_text(json.dumps(settings | {"prediction_type": "magic"}))
    with pytest.raises(ModelError, match="'magic'"):
        family(family.Config(source=str(tmp_path)))
    place.write_text(json.dumps({"_class_name": "FlowMatchEulerDiscreteScheduler"}))
    with pytest.raises(ModelError, match="flow"):
        family(family.Config(source=str(tmp_path)))
    place.unlink()
    with pytest.raises(ModelError, match="scheduler_config"):
        family(family.Config(source=str(tmp_path)))


def test_wrong_sources_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no vision family"):
        registry.detect("vision", str(tmp_path))
    save(toy("sd"), tmp_path)
    pixart = registry.load("vision", "pixart")
    with pytest.raises(ModelError, match="transformer/"):
        pixart(pixart.Config(source=str(tmp_path)))


def test_bfloat16_denoiser_gives_float32() -> None:
    model, exact = toy("sd", dtype="bfloat16"), toy("sd")
    xt, t, given = noisy(exact), torch.tensor([10, 700]), conditioning(exact, 2, 5)
    rounded = model.predict(xt, t, given)
    assert rounded.dtype == torch.float32
    assert (rounded - exact.predict(xt, t, given)).abs().max() < 0.1
