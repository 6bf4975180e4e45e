"""What every vision family promises, on the real classes at toy size."""

import json
from dataclasses import replace
from pathlib import Path
from time import process_time

import pytest
import torch
from torch import Tensor

from lavibridge.core import registry
from lavibridge.core.contracts import BlockTokens, Conditioning
from lavibridge.core.errors import ModelError
from lavibridge.vision.hf import DiffusersModel

KINDS = registry.kinds("vision")
WITH_BLOCKS = ("anima", "cosmos", "kolors", "ldm", "pixart", "playground", "sana", "sd", "sdxl")
JOINT = ("flux", "hunyuan_dit", "sd3")
_BUILT: dict[str, DiffusersModel] = {}

pytestmark = pytest.mark.usefixtures("one_thread")


def toy(kind: str, **options: object) -> DiffusersModel:
    family = registry.load_kind("vision", kind)
    return family(family.Config(source="random", **options))  # type: ignore[no-any-return]


def built(kind: str) -> DiffusersModel:
    """A toy that tests share; they leave it as it is."""
    if kind not in _BUILT:
        _BUILT[kind] = toy(kind)
    return _BUILT[kind]


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest) -> DiffusersModel:
    return built(request.param)


def conditioning(model: DiffusersModel, batch: int, tokens: int, seed: int = 0) -> Conditioning:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(batch, tokens, model.spec.context, generator=generator)
    pooled = model.spec.pooled
    return Conditioning(
        tokens=values,
        mask=torch.ones(batch, tokens, dtype=torch.bool),
        pooled=None if pooled is None else torch.randn(batch, pooled, generator=generator),
    )


def ragged(model: DiffusersModel) -> Conditioning:
    """Three samples of 6, 4 and 4 real tokens, padded on different sides."""
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2, [False] * 2 + [True] * 4])
    return replace(conditioning(model, 3, 6), mask=mask)


def rows(given: Conditioning, chosen: slice) -> Conditioning:
    pooled = None if given.pooled is None else given.pooled[chosen]
    return Conditioning(tokens=given.tokens[chosen], mask=given.mask[chosen], pooled=pooled)


def noisy(model: DiffusersModel, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, *model.latent_shape(32, 32), generator=torch.Generator().manual_seed(1))


def save(model: DiffusersModel, folder: Path) -> None:
    model.backbone.save_pretrained(folder / model.denoiser_folder)
    model.autoencoder.save_pretrained(folder / model.autoencoder_folder)
    model.scheduler.save_pretrained(folder / "scheduler")


def load(kind: str, folder: Path, **options: object) -> DiffusersModel:
    family = registry.load_kind("vision", kind)
    return family(family.Config(source=str(folder), **options))  # type: ignore[no-any-return]


def change(folder: Path, name: str, **settings: object) -> None:
    """Set what a folder's file of settings says."""
    place = folder / name
    place.write_text(json.dumps(json.loads(place.read_text()) | settings))


def test_a_toy_is_built_and_run_in_a_second(model: DiffusersModel) -> None:
    kind = registry.kind_of("vision", model)
    begun = process_time()
    with torch.no_grad():
        again = toy(kind)
        found = again.predict(noisy(again), torch.tensor([10, 700]), conditioning(again, 2, 5))
    assert process_time() - begun < 1
    expected = model.predict(noisy(model), torch.tensor([10, 700]), conditioning(model, 2, 5))
    assert torch.equal(found, expected.detach())


def test_the_families_know_what_they_have() -> None:
    assert {kind for kind in KINDS if built(kind).spec.blocks} >= set(WITH_BLOCKS)
    assert {kind for kind in KINDS if not built(kind).spec.blocks} >= set(JOINT)
    assert {kind for kind in KINDS if built(kind).spec.pooled is not None} >= {"flux", "sd3", "sdxl"}
    assert {kind for kind in KINDS if not built(kind).honours_mask} >= {"flux", "sd3"}
    assert {kind for kind in KINDS if built(kind).prediction_type == "flow"} >= {"flux", "sana", "sd3"}
    assert built("sd").spec.rms == 1
    assert built("sana").spec.rms == pytest.approx(2.345, abs=1e-3)
    assert built("ldm").spec.rms is None


def test_prediction_has_the_latents_shape_and_obeys_its_inputs(model: DiffusersModel) -> None:
    xt, given = noisy(model), conditioning(model, 2, 5)
    t = torch.tensor([10, 700])
    prediction = model.predict(xt, t, given)
    assert prediction.shape == xt.shape
    assert (prediction - model.predict(xt, t, conditioning(model, 2, 5, seed=2))).abs().max() > 1e-4
    assert (prediction - model.predict(xt, torch.tensor([10, 300]), given))[1].abs().max() > 1e-4


def test_attend_is_what_the_layer_does_inside_the_denoiser(model: DiffusersModel) -> None:
    """With a mask, and as the layers get the tokens there: projected, where the family projects them."""
    given = ragged(model)
    for name, block in model.spec.blocks.items():
        seen: list[tuple[torch.Tensor, torch.Tensor]] = []

        def note(module, args, options, output, seen=seen) -> None:  # type: ignore[no-untyped-def]
            seen.append((args[0] if args else options["hidden_states"], output))

        hook = model.backbone.get_submodule(name).register_forward_hook(note, with_kwargs=True)
        with torch.no_grad():
            model.predict(noisy(model, 3), torch.tensor([10, 700, 5]), given)
        hook.remove()
        [(asked, answered)] = seen
        assert asked.shape[-1] == block.width
        torch.testing.assert_close(model.layer_output(name, asked, given), answered)


def test_masked_tokens_are_never_seen(model: DiffusersModel) -> None:
    xt, t = noisy(model), torch.tensor([10, 700])
    short, long = conditioning(model, 2, 5), conditioning(model, 2, 9, seed=3)
    tokens = long.tokens.clone()
    tokens[:, :5] = short.tokens
    mask = torch.arange(9).expand(2, 9) < 5
    padded = Conditioning(tokens=tokens, mask=mask, pooled=short.pooled)
    torch.testing.assert_close(
        model.predict(xt, t, padded), model.predict(xt, t, short), atol=1e-5, rtol=1e-4
    )


def test_samples_of_a_batch_are_apart(model: DiffusersModel) -> None:
    xt, t, given = noisy(model), torch.tensor([10, 700]), conditioning(model, 2, 5)
    both = model.predict(xt, t, given)
    second = model.predict(xt[1:], t[1:], rows(given, slice(1, 2)))
    torch.testing.assert_close(both[1:], second, atol=1e-5, rtol=1e-4)


def test_lengths_and_sides_of_padding_change_no_result(model: DiffusersModel) -> None:
    """Each sample of a ragged batch is as it is alone without padding; gradients reach real tokens only."""
    xt, t, given = noisy(model, 3), torch.tensor([10, 700, 300]), ragged(model)
    tokens = given.tokens.clone().requires_grad_()
    together = model.predict(xt, t, replace(given, tokens=tokens))
    for index in range(3):
        one = rows(given, slice(index, index + 1))
        real = one.tokens[one.mask][None]
        alone = replace(one, tokens=real, mask=torch.ones(real.shape[:2], dtype=torch.bool))
        expected = model.predict(xt[index : index + 1], t[index : index + 1], alone)
        torch.testing.assert_close(together[index : index + 1], expected, atol=1e-5, rtol=1e-4)
    together.square().sum().backward()
    assert tokens.grad is not None
    assert (tokens.grad.abs().amax(-1) > 0).equal(given.mask)


@pytest.mark.parametrize(
    "kind",
    [kind for kind in KINDS if "scaling_factor" in registry.load_kind("vision", kind).toy_autoencoder],
)
def test_latents_are_scaled_by_the_autoencoders_own_factor(kind: str) -> None:
    model = built(kind)
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    mean, std = model.encode_moments(images)
    settings = model.autoencoder.config
    shift, scale = settings.get("shift_factor") or 0.0, settings.scaling_factor
    assert scale == model.toy_autoencoder["scaling_factor"]
    if settings.get("latents_mean") is not None:
        shift, spread = (
            torch.tensor(settings[name]).view(1, -1, 1, 1) for name in ("latents_mean", "latents_std")
        )
        scale = scale / spread / model.scheduler.config.get("sigma_data", 1.0)
    with torch.no_grad():
        encoded = model.autoencoder.encode(images)
    if model.autoencoder_class == "AutoencoderKL":
        torch.testing.assert_close(mean, (encoded.latent_dist.mean - shift) * scale)
        torch.testing.assert_close(std, encoded.latent_dist.std * scale)
    else:
        torch.testing.assert_close(mean, encoded.latent * scale)
        assert not std.any()
    first, again = (model.encode(images, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, again)
    assert model.decode(first).shape == images.shape
    expected = model.autoencoder.decode(mean / scale + shift).sample.detach()
    torch.testing.assert_close(model.decode(mean), expected)


@pytest.mark.parametrize("kind", ["anima", "cosmos", "qwen_image"])
def test_each_channel_of_a_video_model_has_its_own_scale(kind: str) -> None:
    model = built(kind)
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        encoded = model.autoencoder.encode(images[:, :, None]).latent_dist.mean[:, :, 0]
    mean, _ = model.encode_moments(images)
    for channel, (shift, scale) in enumerate(
        zip(*(model.toy_autoencoder[name] for name in ("latents_mean", "latents_std")), strict=True)
    ):
        torch.testing.assert_close(mean[:, channel], (encoded[:, channel] - shift) / scale)


def test_sizes(model: DiffusersModel) -> None:
    assert model.default_size == 32
    channels = model.encode(torch.zeros(1, 3, 32, 32)).shape[1]
    side = 32 // model.factor
    assert model.latent_shape(32, 32) == (channels, side, side)
    assert model.latent_shape(32, 64) == (channels, side, 2 * side)
    wide = torch.randn(1, channels, side, 2 * side)
    assert model.predict(wide, torch.tensor([3]), conditioning(model, 1, 4)).shape == wide.shape
    for height, width in ((33, 32), (0, 32), (32, 30), (2, 2)):
        with pytest.raises(ModelError, match="multiples"):
            model.latent_shape(height, width)


def test_schedule(model: DiffusersModel) -> None:
    assert model.alphas.shape == model.sigmas.shape == model.times.shape == (1000,)
    assert bool((model.alphas.diff() < 0).all())
    assert bool((model.sigmas.diff() > 0).all())


def test_spec_names_the_blocks_that_read_tokens(model: DiffusersModel) -> None:
    modules = dict(model.backbone.named_modules())
    for name, block in model.spec.blocks.items():
        asks = modules[name].to_q
        assert (asks.in_features, asks.out_features) == (block.width, block.inner)


def test_saved_folder_is_detected_and_read(model: DiffusersModel, tmp_path: Path) -> None:
    save(model, tmp_path)
    kind = registry.kind_of("vision", model)
    assert registry.detect_kind("vision", str(tmp_path)) == kind
    loaded = load(kind, tmp_path)
    assert torch.equal(loaded.sigmas, model.sigmas)
    xt, t, given = noisy(model), torch.tensor([10, 700]), conditioning(model, 2, 5)
    torch.testing.assert_close(loaded.predict(xt, t, given), model.predict(xt, t, given))


def test_prediction_type_is_read_from_the_scheduler(tmp_path: Path) -> None:
    save(built("sd"), tmp_path)
    name = "scheduler/scheduler_config.json"
    change(tmp_path, name, prediction_type="v_prediction")
    assert load("sd", tmp_path).prediction_type == "v_prediction"
    change(tmp_path, name, prediction_type="magic")
    with pytest.raises(ModelError, match="'magic'"):
        load("sd", tmp_path)
    change(tmp_path, name, prediction_type="epsilon", _class_name="KarrasVeScheduler")
    with pytest.raises(ModelError, match="KarrasVeScheduler"):
        load("sd", tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ModelError, match="scheduler_config"):
        load("sd", tmp_path)


def test_flows_are_read_from_the_scheduler(tmp_path: Path) -> None:
    save(built("sana"), tmp_path)
    place = tmp_path / "scheduler" / "scheduler_config.json"
    change(tmp_path, "scheduler/scheduler_config.json", flow_shift=5.0)
    steps = torch.arange(1, 1001) / 1000
    shifted = 5 * steps / (1 + 4 * steps)
    own = load("sana", tmp_path)
    torch.testing.assert_close(own.sigmas, shifted)
    assert own.flow_shift((8, 8, 8)) == 5
    place.write_text(json.dumps({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 5.0}))
    other = load("sana", tmp_path)
    assert other.prediction_type == "flow"
    assert torch.equal(other.sigmas, own.sigmas)
    torch.testing.assert_close(other.sigmas.flip(0), other.scheduler.sigmas)
    torch.testing.assert_close(other.times, other.sigmas * 1000)
    change(tmp_path, "scheduler/scheduler_config.json", invert_sigmas=True)
    with pytest.raises(ModelError, match="invert_sigmas"):
        load("sana", tmp_path)
    save(built("sana"), tmp_path)
    change(tmp_path, "scheduler/scheduler_config.json", prediction_type="epsilon")
    with pytest.raises(ModelError, match="flow_prediction"):
        load("sana", tmp_path)


def test_a_dynamic_shift_is_for_sampling_only() -> None:
    flux = built("flux")
    torch.testing.assert_close(flux.sigmas, torch.arange(1, 1001) / 1000)
    settings = flux.scheduler.config
    side = int(settings.base_image_seq_len**0.5) * flux.patch
    logarithm = torch.tensor(
        [flux.flow_shift((16, side, side)), flux.flow_shift((16, 4 * side, 4 * side))]
    ).log()
    torch.testing.assert_close(logarithm, torch.tensor([settings.base_shift, settings.max_shift]))
    assert [built(kind).flow_shift((4, 8, 8)) for kind in ("sd", "sd3")] == [None, 3.0]


def test_wrong_sources_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no vision family"):
        registry.detect_kind("vision", str(tmp_path))
    save(built("sd"), tmp_path)
    with pytest.raises(ModelError, match="transformer/"):
        load("pixart", tmp_path)
    with pytest.raises(ModelError, match="nothing in vqvae/"):
        load("ldm", tmp_path)
    with pytest.raises(ModelError, match="addition_embed_type 'None'"):
        load("sdxl", tmp_path)
    change(tmp_path, "unet/config.json", in_channels=9)
    assert registry.detect_kind("vision", str(tmp_path)) == "sd"
    with pytest.raises(ModelError, match=r"takes 9 channels.*additional input"):
        load("sd", tmp_path)


def test_a_masked_token_generator_is_no_vision_model(tmp_path: Path) -> None:
    """aMUSEd fills in indices of a codebook (decision 0025)."""
    save(built("ldm"), tmp_path)
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text(json.dumps({"_class_name": "UVit2DModel"}))
    (tmp_path / "unet" / "config.json").unlink()
    with pytest.raises(ModelError, match="no vision family accepts"):
        registry.detect_kind("vision", str(tmp_path))


def test_kolors_is_not_sdxl(tmp_path: Path) -> None:
    """Its U-Net reads wider tokens and projects them itself."""
    model = built("kolors")
    save(model, tmp_path)
    assert registry.detect_kind("vision", str(tmp_path)) == "kolors"
    assert model.spec.context == model.backbone.encoder_hid_proj.in_features
    assert model.backbone.config.cross_attention_dim == model.backbone.encoder_hid_proj.out_features
    with pytest.raises(ModelError, match="encoder_hid_dim_type 'text_proj'"):
        load("sdxl", tmp_path)
    change(tmp_path, "unet/config.json", encoder_hid_dim_type="text_image_proj")
    with pytest.raises(ModelError, match="no vision family accepts"):
        registry.detect_kind("vision", str(tmp_path))


def test_playground_is_not_sdxl(tmp_path: Path) -> None:
    """Its U-Net is told other times, and it predicts v for latents of unit variance."""
    model = built("playground")
    save(model, tmp_path)
    assert registry.detect_kind("vision", str(tmp_path)) == "playground"
    with pytest.raises(ModelError, match="EDMDPMSolverMultistepScheduler, not with a schedule of betas"):
        load("sdxl", tmp_path)
    save(built("sdxl"), tmp_path)
    with pytest.raises(ModelError, match="DDIMScheduler, not with the schedule of EDM"):
        load("playground", tmp_path)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing", ["karras", "exponential"])
def test_a_prediction_gives_the_latents_that_edm_gives(
    prediction_type: str, spacing: str, tmp_path: Path
) -> None:
    """The reference is Diffusers' scheduler, with the U-Net's own output."""
    save(built("playground"), tmp_path)
    name = "scheduler/scheduler_config.json"
    change(tmp_path, name, prediction_type=prediction_type, sigma_schedule=spacing)
    model = load("playground", tmp_path)
    calls: list[tuple[Tensor, Tensor]] = []
    hook = model.backbone.register_forward_hook(
        lambda _, given, output: calls.append((given[1], output[0])), with_kwargs=False
    )
    xt, t = noisy(model, 1), torch.tensor([300])
    v = model.predict(xt, t, conditioning(model, 1, 4))
    hook.remove()
    [(time, output)] = calls
    level = (4 * time).exp()
    alpha, sigma = model.alphas[300], model.sigmas[300]
    torch.testing.assert_close(level, 0.5 * sigma[None] / alpha, rtol=1e-4, atol=0)
    found = (alpha * xt - sigma * v) * 0.5
    expected = model.scheduler.precondition_outputs(xt * (level**2 + 0.25).sqrt(), output, level)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_an_edm_schedule_that_predicts_something_else_is_refused(tmp_path: Path) -> None:
    save(built("playground"), tmp_path)
    change(tmp_path, "scheduler/scheduler_config.json", prediction_type="sample")
    with pytest.raises(ModelError, match="supported with epsilon and v_prediction"):
        load("playground", tmp_path)


def test_anima_and_cosmos_differ_by_their_autoencoders(tmp_path: Path) -> None:
    for kind in ("anima", "cosmos"):
        save(built(kind), tmp_path / kind)
        assert registry.detect_kind("vision", str(tmp_path / kind)) == kind
    change(tmp_path / "cosmos", "transformer/config.json", use_crossattn_projection=True)
    with pytest.raises(ModelError, match=r"Cosmos-Predict2\.5"):
        load("cosmos", tmp_path / "cosmos")
    change(tmp_path / "cosmos", "transformer/config.json", in_channels=5, concat_padding_mask=True)
    with pytest.raises(ModelError, match="takes 5 channels, but its latents have 4"):
        load("cosmos", tmp_path / "cosmos")


def test_hunyuan_dit_takes_no_more_tokens_than_its_own_encoder_made() -> None:
    model = built("hunyuan_dit")
    with pytest.raises(ModelError, match="takes 256 tokens, found 257"):
        model.predict(noisy(model), torch.tensor([10, 700]), conditioning(model, 2, 257))


def test_distilled_and_filling_models_are_refused(tmp_path: Path) -> None:
    save(built("sana"), tmp_path / "sana")
    change(tmp_path / "sana", "transformer/config.json", guidance_embeds=True)
    with pytest.raises(ModelError, match="distilled"):
        load("sana", tmp_path / "sana")
    save(built("flux"), tmp_path / "flux")
    change(tmp_path / "flux", "transformer/config.json", in_channels=384)
    with pytest.raises(ModelError, match="takes 384 channels"):
        load("flux", tmp_path / "flux")


def test_flux_is_told_a_guidance(tmp_path: Path) -> None:
    model, more = built("flux"), toy("flux", embedded_guidance_scale=7.0)
    assert model.default_guidance_scale == 1
    xt, t, given = noisy(model), torch.tensor([10, 700]), conditioning(model, 2, 5)
    assert (model.predict(xt, t, given) - more.predict(xt, t, given)).abs().max() > 1e-4
    options = {**model.toy, "guidance_embeds": False}
    save(model, tmp_path)
    type(model.backbone)(**options).save_pretrained(tmp_path / "transformer")
    first, second = load("flux", tmp_path), load("flux", tmp_path, embedded_guidance_scale=7.0)
    assert torch.equal(first.predict(xt, t, given), second.predict(xt, t, given))


def test_sdxl_is_told_sizes_and_a_pooled_vector() -> None:
    model = built("sdxl")
    given, t = conditioning(model, 2, 5), torch.tensor([10, 700])
    seen: list[dict[str, Tensor]] = []
    hook = model.backbone.register_forward_pre_hook(
        lambda module, args, options: seen.append(options["added_cond_kwargs"]), with_kwargs=True
    )
    model.predict(torch.randn(2, 4, 8, 16), t, given)
    hook.remove()
    [told] = seen
    assert told["time_ids"].tolist() == [[32, 64, 0, 0, 32, 64]] * 2
    assert given.pooled is not None
    assert torch.equal(told["text_embeds"], given.pooled)


@pytest.mark.parametrize("kind", ["flux", "sd3", "sdxl"])
def test_the_pooled_vector_counts_and_is_needed(kind: str) -> None:
    model = built(kind)
    xt, t, given = noisy(model), torch.tensor([10, 700]), conditioning(model, 2, 5)
    assert given.pooled is not None
    other = replace(given, pooled=given.pooled + 1)
    assert (model.predict(xt, t, given) - model.predict(xt, t, other)).abs().max() > 1e-4
    with pytest.raises(ModelError, match="pooled vector of width 24"):
        model.predict(xt, t, replace(given, pooled=None))


@pytest.mark.parametrize("told", [True, False])
def test_pixart_sigma_and_alpha_of_1024_pixels(told: bool, tmp_path: Path) -> None:
    """Both have latents of 128x128; alpha is told the picture's size, sigma is not; captions differ."""
    model = built("pixart")
    save(model, tmp_path)
    options = {
        "sample_size": 128,
        "use_additional_conditions": told,
        "caption_channels": 24,
        "interpolation_scale": 2,
        "attention_head_dim": 24,
        "cross_attention_dim": 48,
    }
    type(model.backbone)(**{**model.toy, **options}).save_pretrained(tmp_path / "transformer")
    assert registry.detect_kind("vision", str(tmp_path)) == "pixart"
    large = load("pixart", tmp_path)
    assert (large.spec.context, large.default_size, large.default_guidance_scale) == (24, 512, 4.5)
    seen: list[dict[str, Tensor]] = []
    hook = large.backbone.register_forward_pre_hook(
        lambda module, args, options: seen.append(options["added_cond_kwargs"]), with_kwargs=True
    )
    given = conditioning(large, 1, 5)
    assert large.predict(torch.randn(1, 4, 8, 16), torch.tensor([3]), given).shape == (1, 4, 8, 16)
    hook.remove()
    if told:
        assert seen[0]["resolution"].tolist() == [[32, 64]]
        assert seen[0]["aspect_ratio"].tolist() == [[0.5]]
    else:
        assert seen == [{"resolution": None, "aspect_ratio": None}]


@pytest.mark.parametrize("kind", WITH_BLOCKS)
def test_an_opened_denoiser_is_the_closed_one_until_a_block_is_spoken_to(kind: str) -> None:
    closed, opened = built(kind), toy(kind)
    opened.enable_per_block_attention()
    xt, t = noisy(closed, 3), torch.tensor([10, 700, 300])
    for given in (conditioning(closed, 3, 5), ragged(closed)):
        expected = closed.predict(xt, t, given)
        torch.testing.assert_close(opened.predict(xt, t, given), expected, atol=1e-5, rtol=1e-5)
        names = list(closed.spec.blocks)
        silent = replace(given, blocks={name: lambda queries, answer: answer for name in names})
        torch.testing.assert_close(opened.predict(xt, t, silent), expected, atol=1e-5, rtol=1e-5)
        for name in names:
            louder = replace(given, blocks={name: lambda queries, answer: 3 * answer})
            assert (opened.predict(xt, t, louder) - expected).abs().max() > 1e-4
    with pytest.raises(ModelError, match="enable_per_block_attention"):
        closed.predict(xt, t, louder)


@pytest.mark.parametrize("kind", WITH_BLOCKS)
def test_a_layer_reads_the_tokens_that_are_its_own(kind: str) -> None:
    """The same tokens change nothing; other tokens, given to every layer, act as the conditioning's do."""
    opened = toy(kind)
    opened.enable_per_block_attention()
    xt, t, given = noisy(opened, 3), torch.tensor([10, 700, 300]), ragged(opened)
    names = list(opened.spec.blocks)
    other = replace(given, tokens=given.tokens.flip(0))
    for tokens, expected in ((given.tokens, given), (other.tokens, other)):
        own = replace(given, blocks={name: BlockTokens(tokens=tokens) for name in names})
        torch.testing.assert_close(
            opened.predict(xt, t, own), opened.predict(xt, t, expected), atol=1e-5, rtol=1e-5
        )
    for name in names:
        one = replace(given, blocks={name: BlockTokens(tokens=other.tokens)})
        assert (opened.predict(xt, t, one) - opened.predict(xt, t, given)).abs().max() > 1e-5


@pytest.mark.parametrize("kind", WITH_BLOCKS)
@pytest.mark.parametrize("padded", [False, True])
def test_gradients_of_blocks_are_the_same_under_checkpointing(kind: str, padded: bool) -> None:
    model = toy(kind)
    model.enable_per_block_attention()
    given = ragged(model) if padded else conditioning(model, 3, 6)
    xt, t = noisy(model, 3), torch.tensor([10, 700, 300])
    generator = torch.Generator().manual_seed(4)
    used = {
        name: torch.randn(block.width, block.inner, generator=generator).mul(0.1).requires_grad_()
        for name, block in model.spec.blocks.items()
    }

    def gradients() -> tuple[Tensor, ...]:
        blocks = {
            name: lambda queries, answer, weight=weight: answer + queries @ weight
            for name, weight in used.items()
        }
        loss = model.predict(xt, t, replace(given, blocks=blocks)).square().mean()
        return torch.autograd.grad(loss, tuple(used.values()))

    plain = gradients()
    calls: list[str] = []
    model.backbone.enable_gradient_checkpointing()
    model.backbone.train()
    layer = model.backbone.get_submodule(next(iter(used)))
    layer.register_forward_hook(lambda module, args, output: calls.append("again"))
    recomputed = gradients()
    assert len(calls) == 2
    for one, other in zip(plain, recomputed, strict=True):
        assert one.abs().max() > 0
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", JOINT)
def test_joint_attention_has_no_blocks_to_open(kind: str) -> None:
    model = built(kind)
    with pytest.raises(ModelError, match="no cross-attention layers"):
        model.enable_per_block_attention()
    with pytest.raises(ModelError, match="no cross-attention layers"):
        model.layer_output("transformer_blocks.0.attn", torch.randn(1, 4, 32), conditioning(model, 1, 3))


def test_a_second_self_attention_is_no_cross_attention(tmp_path: Path) -> None:
    """Stable Diffusion 3.5 has one in its first layers, by the name that cross-attention has elsewhere."""
    model = built("sd3")
    save(model, tmp_path)
    options = {**model.toy, "dual_attention_layers": (0,), "qk_norm": "rms_norm"}
    type(model.backbone)(**options).save_pretrained(tmp_path / "transformer")
    newer = load("sd3", tmp_path)
    assert "transformer_blocks.0.attn2" in dict(newer.backbone.named_modules())
    assert newer.spec.blocks == {}


@pytest.mark.parametrize("kind", ["flux", "sd3"])
def test_one_call_of_the_denoiser_for_each_length(kind: str) -> None:
    model = built(kind)
    lengths: list[tuple[int, ...]] = []
    hook = model.backbone.register_forward_pre_hook(
        lambda module, args, options: lengths.append(tuple(options["encoder_hidden_states"].shape[:2])),
        with_kwargs=True,
    )
    model.predict(noisy(model, 3), torch.tensor([10, 700, 300]), ragged(model))
    hook.remove()
    assert lengths == [(2, 4), (1, 6)]


def test_bfloat16_denoiser_gives_float32() -> None:
    model, exact = toy("sd", dtype="bfloat16"), built("sd")
    xt, t, given = noisy(exact), torch.tensor([10, 700]), conditioning(exact, 2, 5)
    rounded = model.predict(xt, t, given)
    assert rounded.dtype == torch.float32
    assert (rounded - exact.predict(xt, t, given)).abs().max() < 0.1
