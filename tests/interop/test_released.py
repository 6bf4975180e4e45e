"""Released weights: the published order and shapes, what is set with them, and everything that is refused."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lavibridge import Bridge, BridgePipeline, import_released, to_diffusers
from lavibridge.cli.main import app
from lavibridge.connectors.ella import Ella
from lavibridge.connectors.lavi import LaviAdapter
from lavibridge.core import registry
from lavibridge.core.contracts import TextFeatures, TextSpec, VisionSpec
from lavibridge.core.errors import ModelError, RecipeError, RunError
from lavibridge.core.low_rank import low_rank_shapes
from lavibridge.interop.ella import read_ella_sizes
from lavibridge.interop.published_order import published_order
from lavibridge.vision.sd import StableDiffusion

GOLDEN = Path(__file__).parents[3] / "shared" / "golden"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"the published numbers are not at {GOLDEN}")
T5 = {"kind": "t5", "source": "random"}
SD = {"kind": "sd", "source": "random"}
PIXART = {"kind": "pixart", "source": "random"}


def write_released(folder: Path, language: dict[str, Any], vision: dict[str, Any], rank: int = 4) -> Path:
    """A folder as the published training writes it, with random weights for two toys."""
    bridge = Bridge.compose(language, vision, {"kind": "lavi", "width": 20}, None, None)
    generator = torch.Generator().manual_seed(5)
    folder.mkdir(parents=True)
    for name, model in (("lora_text.pt", bridge.language), ("lora_vis.pt", bridge.vision)):
        values: list[Tensor] = []
        for layer in published_order(model.backbone).values():
            values += [
                0.1 * torch.randn(shape, generator=generator) for shape in low_rank_shapes(layer, rank)
            ]
        torch.save([nn.Parameter(value.half()) for value in values], folder / name)
    adapter = folder / "adapter"
    adapter.mkdir()
    sizes = {
        "in_dim": bridge.language.spec.width,
        "int_dim": 20,
        "out_dim": bridge.vision.spec.context,
    }
    (adapter / "config.json").write_text(json.dumps({"_class_name": "TextAdapter"} | sizes))
    save_file(bridge.connector.state_dict(), adapter / "diffusion_pytorch_model.safetensors")
    return folder


@pytest.fixture
def released(tmp_path: Path) -> Path:
    return write_released(tmp_path / "released", T5, SD)


def import_toys(path: Path, language: Any = T5, vision: Any = SD) -> Bridge:
    return import_released("lavi-bridge", path, language, vision, device="cpu")


# ------------------------------------------------------------------------------ order and shapes at true size


def true_network(combination: str, part: str) -> nn.Module:
    """The published pair's models on the meta device: shapes without weights."""
    with torch.device("meta"):
        if part == "lora_text":
            if combination == "llama2_unet":
                return transformers.LlamaModel(transformers.LlamaConfig())
            sizes = {"d_model": 1024, "d_kv": 64, "d_ff": 4096, "num_layers": 24, "num_heads": 16}
            return transformers.T5EncoderModel(transformers.T5Config(**sizes))
        if combination == "t5_transformer":
            return diffusers.PixArtTransformer2DModel(sample_size=64, caption_channels=4096)
        return diffusers.UNet2DConditionModel(cross_attention_dim=768)


@needs_golden
@pytest.mark.parametrize("part", ["lora_vis", "lora_text"])
@pytest.mark.parametrize("combination", ["t5_unet", "llama2_unet", "t5_transformer"])
def test_the_order_is_the_published_one_at_true_size(combination: str, part: str) -> None:
    facts = json.loads((GOLDEN / "true_shapes" / f"{combination}.json").read_text())
    found = published_order(true_network(combination, part))
    rows = facts[part]["rows"]
    # The published code wraps Llama in a class with a vocabulary head.
    assert list(found) == [row["module"].removeprefix("model.") for row in rows]
    for layer, row in zip(found.values(), rows, strict=True):
        assert low_rank_shapes(layer, facts["rank"]) == (tuple(row["up"]), tuple(row["down"]))


@needs_golden
@pytest.mark.parametrize("combination", ["t5_unet", "llama2_unet", "t5_transformer"])
def test_the_adapter_is_the_published_one_at_true_size(combination: str) -> None:
    facts = json.loads((GOLDEN / "true_shapes" / f"{combination}.json").read_text())["adapter"]
    sizes = facts["config"]
    text, vision = TextSpec(width=sizes["in_dim"], layers=2), VisionSpec(context=sizes["out_dim"])
    with torch.device("meta"):
        adapter = LaviAdapter(LaviAdapter.Config(width=sizes["int_dim"]), text, vision)
    assert {name: list(value.shape) for name, value in adapter.state_dict().items()} == facts["keys"]


@needs_golden
def test_ella_is_the_published_one_at_true_size() -> None:
    facts = json.loads((GOLDEN / "true_shapes" / "ella-sd1.5-tsc-t5xl.json").read_text())
    weights = {name: torch.empty(shape, device="meta") for name, shape in facts["keys"].items()}
    config, text_width, context = read_ella_sizes(weights, Path("ella"))
    assert (text_width, context) == (2048, 768)
    config.pop("kind")
    with torch.device("meta"):
        ella = Ella(Ella.Config(**config), TextSpec(width=text_width, layers=2), VisionSpec(context=context))
    assert {name: list(value.shape) for name, value in ella.state_dict().items()} == facts["keys"]
    assert len(weights) == 93


# ------------------------------------------------------------------------------------------- what comes along


@needs_golden
def test_an_adapter_in_the_old_format_is_the_same(tmp_path: Path) -> None:
    """The published U-Net adapters are pickles."""
    source = GOLDEN / "t5_unet" / "ckpt"
    shutil.copytree(source, tmp_path / "old")
    adapter = tmp_path / "old" / "adapter"
    adapter.chmod(0o755)
    weights = load_file(adapter / "diffusion_pytorch_model.safetensors")
    (adapter / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(weights, adapter / "diffusion_pytorch_model.bin")
    models = [str(GOLDEN / "models" / name) for name in ("t5-large", "stable-diffusion-v1-4")]
    old, new = (
        import_released("lavi-bridge", path, *models, device="cpu") for path in (tmp_path / "old", source)
    )
    assert torch.equal(old.condition(["a cat"]).tokens, new.condition(["a cat"]).tokens)


def test_settings_follow_the_vision_model_and_may_be_overruled(tmp_path: Path, released: Path) -> None:
    unet = import_toys(released)
    assert (unet.language.max_tokens, unet.language.config.see_padding) == (77, True)
    assert bool(unet.features(["a", "a long prompt"]).mask.all())
    pixart = write_released(tmp_path / "pixart", T5, PIXART)
    bridge = import_toys(pixart, vision=PIXART)
    assert (bridge.language.max_tokens, bridge.language.config.see_padding) == (120, False)
    assert import_toys(released, {**T5, "max_tokens": 50}).language.max_tokens == 50
    assert not bridge.training


def test_an_imported_bridge_is_saved_and_opened(released: Path, tmp_path: Path) -> None:
    bridge = import_toys(released)
    bridge.save_pretrained(tmp_path / "saved")
    again = Bridge.from_pretrained(tmp_path / "saved", device="cpu")
    assert torch.equal(again.condition(["a cat"]).tokens, bridge.condition(["a cat"]).tokens)
    for one, other in zip(bridge.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


# ------------------------------------------------------------------------------------------------------- ELLA


@pytest.fixture
def ella(tmp_path: Path) -> Path:
    """A connector as the published file holds one: float16, its zeros moved."""
    generator = torch.Generator().manual_seed(3)
    config = Ella.Config(latents=5, blocks=2, time_channels=16)
    made = Ella(config, TextSpec(width=32, layers=3), VisionSpec(context=48))
    state = {
        name: (0.2 * torch.randn(value.shape, generator=generator)).half()
        for name, value in made.state_dict().items()
    }
    save_file(state, tmp_path / "ella.safetensors")
    return tmp_path / "ella.safetensors"


def test_ella_comes_with_its_sizes_and_settings(ella: Path) -> None:
    bridge = import_released("ella", ella, T5, SD, device="cpu")
    saved = load_file(ella)
    assert all(
        torch.equal(value.half(), saved[name]) for name, value in bridge.connector.state_dict().items()
    )
    assert (bridge.language.max_tokens, bridge.language.config.see_padding) == (128, "connector")
    features = bridge.features(["a cat", "a much longer prompt"])
    assert features.mask.shape == (2, 128)
    assert bool(features.mask.all())
    early, late = (bridge.condition(["a cat"], torch.tensor([t])).tokens for t in (20, 900))
    assert early.shape == (1, 5, 48)
    assert (early - late).abs().max() > 1e-3
    flexible = import_released("ella", ella, {**T5, "see_padding": False}, SD, device="cpu")
    assert flexible.features(["a cat"]).mask.shape[1] < 128


def test_an_ella_that_is_none_is_refused(ella: Path, tmp_path: Path) -> None:
    weights = load_file(ella)
    path = tmp_path / "other.safetensors"

    def refused(changed: dict[str, Tensor], match: str, vision: dict[str, Any] = SD) -> None:
        save_file(changed, path)
        with pytest.raises(ModelError, match=match):
            import_released("ella", path, T5, vision, device="cpu")

    refused({"a": torch.zeros(2)}, "is not an ELLA file")
    refused(
        {k: v for k, v in weights.items() if "attn.out_proj" not in k},
        "does not fit: it has .* weights and needs",
    )
    refused(weights | {"extra": torch.zeros(2)}, "extra")
    first = "time_embedding.linear_1.weight"
    refused(weights | {first: torch.zeros(50, 16)}, "time_embedding.linear_1.bias has shape")
    refused(weights | {"connector.proj_in.bias": torch.zeros(50)}, "connector.proj_in.bias has shape")
    refused(weights | {"connector.proj_in.weight": torch.zeros(48, 40)}, "text features of width 40")


class WideStableDiffusion(StableDiffusion):
    toy = {**StableDiffusion.toy, "cross_attention_dim": 64}  # noqa: RUF012 - a constant of the class


@pytest.fixture
def golden_ella(tmp_path: Path) -> Bridge:
    """The official code's small one, between a T5 and a U-Net of its widths."""
    t5 = registry.load_kind("language", "t5")
    wide = type("WideT5", (t5,), {"toy": {**t5.toy, "d_model": 48}})(t5.Config(source="random"))
    wide.backbone.save_pretrained(tmp_path)
    wide.tokenizer.save_pretrained(tmp_path)
    vision = WideStableDiffusion(StableDiffusion.Config(source="random"))
    path = GOLDEN / "ella" / "ella.safetensors"
    return import_released(
        "ella", path, {"kind": "t5", "source": str(tmp_path)}, vision, {"heads": 4}, device="cpu"
    )


@needs_golden
def test_the_golden_ella_says_what_the_official_code_said(golden_ella: Bridge) -> None:
    tensors = load_file(GOLDEN / "ella" / "golden.safetensors")
    text, ella = tensors["in.text"], golden_ella.connector
    everything = torch.ones(text.shape[:2], dtype=torch.bool)

    def said(t: Tensor, mask: Tensor = everything) -> Tensor:
        return ella(TextFeatures(hidden=text[:, None], mask=mask), t).tokens

    def assert_close(found: Tensor, name: str) -> None:
        expected = tensors[name]
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max(), name

    for t in (1, 250, 981):
        assert_close(said(torch.full((3,), t)), f"out.out_t{t}")
    assert_close(said(tensors["in.timesteps_batch"]), "out.out_batch_t")
    cut = torch.arange(text.shape[1]) < tensors["in.lengths"][:, None]
    assert_close(said(torch.full((3,), 250), cut), "out.out_flexible_t250")
    (said(tensors["in.timesteps_batch"]) * tensors["in.cot"]).mean().backward()
    assert_close(ella.connector.latents.grad, "out.grad.connector.latents")  # type: ignore[union-attr, arg-type]
    norms = torch.stack([value.grad.norm() for value in ella.parameters()])  # type: ignore[union-attr]
    assert_close(norms, "out.grad_norms")


def test_bridge_has_it_by_name(ella: Path) -> None:
    bridge = import_released("ella", ella, language=T5, vision=SD, device="cpu")
    assert isinstance(bridge.connector, Ella)
    assert isinstance(to_diffusers(bridge), diffusers.StableDiffusionPipeline)


@needs_golden
def test_the_golden_ella_draws_and_is_saved(golden_ella: Bridge, tmp_path: Path) -> None:
    picture = BridgePipeline(golden_ella)("a red circle", num_inference_steps=2, seed=0).images[0]
    assert picture.size == (32, 32)
    golden_ella.connector.eval()
    assert (
        BridgePipeline(golden_ella)("a red circle", num_inference_steps=2, seed=0).images[0].tobytes()
        == picture.tobytes()
    )


# -------------------------------------------------------------------------------------------------- refusals


def test_unknown_formats_and_missing_places(released: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="did you mean 'lavi-bridge'"):
        import_released("lavibridge", released, T5, SD)
    with pytest.raises(ModelError, match="there is no file or folder"):
        import_toys(tmp_path / "nowhere")
    (released / "lora_vis.pt").rename(released / "s1000_lora_vis.pt")
    with pytest.raises(ModelError, match=r"lacks lora_vis.pt; found adapter, .*rename them"):
        import_toys(released)


class Bomb:
    """A pickle that would run code if it were let."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("boom",)


def test_a_pickle_that_is_no_plain_list_of_tensors_is_refused(
    released: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = released / "lora_vis.pt"
    values = torch.load(path, weights_only=True)
    for content, match in (
        ([*values, Bomb()], "holds more than tensors"),
        (dict(enumerate(values)), "plain list of tensors, found a dict"),
        ([*values, "name"], r"plain list of tensors, found a list of .*str"),
        (values[:-1], "pairs of up and down"),
        ([], "pairs of up and down"),
        ([values[0], *values[:1], *values[2:]], "pair 0 is not LoRA"),
    ):
        torch.save(content, path)
        with pytest.raises(ModelError, match=match):
            import_toys(released)
    for raw in (b"", b"garbage" * 100, pickle.dumps([1, 2])):
        path.write_bytes(raw)
        with pytest.raises(ModelError, match=r"lora_vis\.pt"):
            import_toys(released)
    whole = released / "lora_text.pt"
    path.write_bytes(whole.read_bytes()[:-500])
    with pytest.raises(ModelError, match="another copy"):
        import_toys(released)
    assert "boom" not in capsys.readouterr().out


def test_lists_that_do_not_fit_are_named(released: Path, tmp_path: Path) -> None:
    vision, language = released / "lora_vis.pt", released / "lora_text.pt"
    lists = {path: torch.load(path, weights_only=True) for path in (vision, language)}

    def refused(match: str, language: Any = T5, vision: Any = SD) -> None:
        with pytest.raises(ModelError, match=match):
            import_toys(released, language, vision)

    refused(
        "lora_text.pt holds 8 pairs, but the language model takes 0", {"kind": "bert", "source": "random"}
    )
    torch.save(lists[vision][:-2], vision)
    refused("choose the model that it was trained with")
    torch.save(lists[vision] + lists[vision][-2:], vision)
    refused("choose the model that it was trained with")
    torch.save([*lists[vision][:-2], torch.zeros(64, 3, 1, 1), torch.zeros(3, 64, 3, 3)], vision)
    refused("pairs of one rank, found ranks 3, 4")
    changed = list(lists[vision])
    changed[0] = torch.zeros(40, 4)
    torch.save(changed, vision)
    refused(r"to_q, up has shape \(40, 4\) in the file, but this model needs \(32, 4\)")
    torch.save(lists[language], vision)
    torch.save(lists[vision], language)
    refused("did you swap lora_text.pt and lora_vis.pt")


def test_the_wrong_pair_is_named(released: Path) -> None:
    with pytest.raises(
        ModelError, match=r"text features of width 32 to conditioning of width 48.*has width 48"
    ):
        import_toys(released, {"kind": "clip", "source": "random", "max_tokens": 77})
    with pytest.raises(ModelError, match=r"lora_vis\.pt holds \d+ pairs, but the vision model takes 16"):
        import_toys(released, vision=PIXART)


def test_a_damaged_adapter_is_named(released: Path) -> None:
    adapter = released / "adapter"
    weights = adapter / "diffusion_pytorch_model.safetensors"
    whole, config = weights.read_bytes(), (adapter / "config.json").read_text()
    for raw in (whole[:-100], b"garbage" * 50, b""):
        weights.write_bytes(raw)
        with pytest.raises(ModelError, match=r"is incomplete|not a safetensors file"):
            import_toys(released)
    weights.write_bytes(whole)
    (adapter / "config.json").write_text('{"in_dim": 32, "out_dim": 48}')
    with pytest.raises(ModelError, match="int_dim must be a whole number, found None"):
        import_toys(released)
    (adapter / "config.json").write_text(config.replace('"int_dim": 20', '"int_dim": 24'))
    with pytest.raises(ModelError, match=r"the connector in .* does not fit"):
        import_toys(released)
    (adapter / "config.json").write_text(config)
    weights.rename(adapter / "model.ckpt")
    with pytest.raises(ModelError, match="holds neither"):
        import_toys(released)
    torch.save([torch.zeros(2)], adapter / "diffusion_pytorch_model.bin")
    with pytest.raises(ModelError, match="must hold tensors by name, found a list"):
        import_toys(released)


# ------------------------------------------------------------------------------------------- the command line


@needs_golden
def test_the_command_makes_a_bridge_that_opens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = [str(GOLDEN / "models" / name) for name in ("t5-large", "PixArt-XL-2-512x512")]
    call = ["import", "lavi-bridge", str(GOLDEN / "t5_transformer" / "ckpt")]
    call += ["--language", models[0], "--vision", models[1], "--out", str(tmp_path / "run")]
    app(call, standalone_mode=False)
    assert capsys.readouterr().out.strip() == str(tmp_path / "run")
    bridge = BridgePipeline.from_pretrained(tmp_path / "run", device="cpu").bridge
    expected = import_released("lavi-bridge", call[2], *models, device="cpu").merge()
    assert torch.equal(bridge.condition(["a cat"]).tokens, expected.condition(["a cat"]).tokens)
    with pytest.raises(RunError, match="exists already"):
        app(call, standalone_mode=False)
