"""RouWei's adapters: the published names and shapes, the published computation, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from lavibridge import BridgePipeline, import_released
from lavibridge.cli.main import app
from lavibridge.connectors.rouwei import RouWei
from lavibridge.core.contracts import TextFeatures, TextSpec, VisionSpec
from lavibridge.core.errors import ModelError, RecipeError
from lavibridge.interop.rouwei import read_rouwei_sizes

PUBLISHED = {"gemma": (1152, 2), "t5gemma": (2304, 3)}
"""Width of the language model, and number of wide blocks."""
GEMMA = {"kind": "gemma", "source": "random", "template": "turn user {prompt} turn model"}
T5GEMMA = {"kind": "t5gemma", "source": "random"}
SDXL = {"kind": "sdxl", "source": "random"}


def attention_shapes(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{name}.in_proj_weight": (3 * width, width),
        f"{name}.in_proj_bias": (3 * width,),
        f"{name}.out_proj.weight": (width, width),
        f"{name}.out_proj.bias": (width,),
    }


def vector_shapes(names: list[str], width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.{part}": (width,) for name in names for part in ("weight", "bias")}


def published_shapes(
    text: int, wide: int, width: int = 2048, pooled: int = 1280, positions: int = 512, latents: int = 308
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a file, as the published class of the adapter declares them."""
    shapes: dict[str, tuple[int, ...]] = {
        "seq_projection.weight": (width, text),
        "seq_projection.bias": (width,),
        "input_position_embeddings": (1, positions, width),
        "output_position_embeddings": (1, latents, width),
        "compression_queries": (1, latents, width),
        "compression_gate.0.weight": (width, 2 * width),
        "compression_gate.0.bias": (width,),
        "pooling_token": (1, 1, width),
        "pooled_projection.0.weight": (width, width),
        "pooled_projection.0.bias": (width,),
        "pooled_projection.4.weight": (pooled, width),
        "pooled_projection.4.bias": (pooled,),
        **vector_shapes(["compression_norm", "pooled_projection.1"], width),
        **attention_shapes("compression_attention", width),
        **attention_shapes("pooling_attention", width),
    }
    for stem in (*(f"wide_attention_blocks.{n}" for n in range(wide)), *BLOCKS):
        shapes |= attention_shapes(f"{stem}.attn", width) | vector_shapes(
            [f"{stem}.norm1", f"{stem}.norm2"], width
        )
        shapes |= {
            f"{stem}.mlp.0.weight": (4 * width, width),
            f"{stem}.mlp.0.bias": (4 * width,),
            f"{stem}.mlp.2.weight": (width, 4 * width),
            f"{stem}.mlp.2.bias": (width,),
        }
    return shapes


BLOCKS = tuple(f"narrow_attention_blocks.{n}" for n in range(3))


@pytest.mark.parametrize("adapter", PUBLISHED)
def test_the_published_files_fit_tensor_by_tensor(adapter: str) -> None:
    text, wide = PUBLISHED[adapter]
    shapes = published_shapes(text, wide)
    with torch.device("meta"):
        weights = {name: torch.empty(shape) for name, shape in shapes.items()}
        config, text_width, context = read_rouwei_sizes(weights, Path("adapter.safetensors"))
        assert (config.pop("kind"), text_width, context) == ("rouwei", text, 2048)
        made = RouWei(
            RouWei.Config.model_validate(config),
            TextSpec(width=text, layers=27),
            VisionSpec(context=2048, pooled=1280),
        )
    assert {name: tuple(value.shape) for name, value in made.state_dict().items()} == shapes
    count = sum(value.numel() for value in made.parameters())
    assert round(count / 1e6) == {"gemma": 305, "t5gemma": 358}[adapter]


SMALL: dict[str, int] = {"width": 48, "pooled": 24, "positions": 40, "latents": 6}


def write_adapter(path: Path, text: int, wide: int = 2, **changed: Any) -> dict[str, Tensor]:
    """A file of the published names at toy size, drawn."""
    generator = torch.Generator().manual_seed(1)
    shapes = published_shapes(text, wide, **{**SMALL, **changed})
    state = {
        name: (1.0 if "norm" in name and name.endswith("weight") else 0.0)
        + 0.3 * torch.randn(shape, generator=generator)
        for name, shape in shapes.items()
    }
    save_file(state, path)
    return state


def block(state: dict[str, Tensor], stem: str, x: Tensor, hidden: Tensor | None) -> Tensor:
    given = norm(state, f"{stem}.norm1", x)
    x = x + attend(state, f"{stem}.attn", given, given, hidden)
    inner = functional.gelu(linear(state, f"{stem}.mlp.0", norm(state, f"{stem}.norm2", x)))
    return x + linear(state, f"{stem}.mlp.2", inner)


def linear(state: dict[str, Tensor], stem: str, x: Tensor) -> Tensor:
    return functional.linear(x, state[f"{stem}.weight"], state[f"{stem}.bias"])


def norm(state: dict[str, Tensor], stem: str, x: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], state[f"{stem}.weight"], state[f"{stem}.bias"])


def attend(state: dict[str, Tensor], stem: str, query: Tensor, text: Tensor, hidden: Tensor | None) -> Tensor:
    made = nn.MultiheadAttention(query.shape[-1], 16, batch_first=True)
    made.load_state_dict({name: state[f"{stem}.{name}"] for name in made.state_dict()})
    return made(query, text, text, key_padding_mask=hidden)[0].detach()  # type: ignore[no-any-return]


def published(state: dict[str, Tensor], hidden: Tensor, left: bool) -> tuple[Tensor, Tensor]:
    """The adapter's outputs for one text, by definition: padded to all positions, with the padding masked."""
    positions = state["input_position_embeddings"].shape[1]
    missing = positions - hidden.shape[1]
    padded = functional.pad(hidden, (0, 0, missing, 0) if left else (0, 0, 0, missing))
    mask = torch.zeros(1, positions, dtype=torch.bool)
    mask[:, slice(0, missing) if left else slice(positions - missing, positions)] = True
    x = linear(state, "seq_projection", padded) + state["input_position_embeddings"]
    for n in range(2):
        x = block(state, f"wide_attention_blocks.{n}", x, mask)
    queries = state["compression_queries"]
    found = attend(state, "compression_attention", queries, x, mask)
    gate = torch.sigmoid(linear(state, "compression_gate.0", torch.cat([queries, found], dim=-1)))
    y = norm(state, "compression_norm", gate * found + (1 - gate) * queries)
    y = y + state["output_position_embeddings"]
    for stem in BLOCKS:
        y = block(state, stem, y, None)
    pooled = attend(state, "pooling_attention", state["pooling_token"], y, None)[:, 0]
    pooled = functional.gelu(norm(state, "pooled_projection.1", linear(state, "pooled_projection.0", pooled)))
    return y, linear(state, "pooled_projection.4", pooled)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_conditioning_is_the_published_one_in_any_batch(side: str, tmp_path: Path) -> None:
    state = write_adapter(tmp_path / "adapter.safetensors", 32)
    config, text_width, context = read_rouwei_sizes(state, tmp_path)
    config.pop("kind")
    made = RouWei(
        RouWei.Config(**config, skip=1, padding_side=side),
        TextSpec(width=text_width, layers=3),
        VisionSpec(context=context, pooled=24),
    ).eval()
    made.load_state_dict(state)
    generator = torch.Generator().manual_seed(2)
    texts = [torch.randn(1, length, 32, generator=generator) for length in (5, 9, 40)]
    given = TextFeatures.pad(
        [
            TextFeatures(hidden=text[:, None], mask=torch.ones(1, text.shape[1], dtype=torch.bool))
            for text in texts
        ]
    )
    with torch.no_grad():
        found = made(given)
    assert bool(found.mask.all())
    for index, text in enumerate(texts):
        tokens, pooled = published(state, text[:, 1:], side == "left")
        torch.testing.assert_close(found.tokens[index : index + 1], tokens, rtol=1e-4, atol=1e-4)
        assert found.pooled is not None
        torch.testing.assert_close(found.pooled[index : index + 1], pooled, rtol=1e-4, atol=1e-4)


def test_an_imported_adapter_draws_and_opens_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "adapter.safetensors"
    state = write_adapter(path, 32)
    bridge = import_released("rouwei", path, GEMMA, SDXL, device="cpu")
    assert all(torch.equal(value, state[name]) for name, value in bridge.connector.state_dict().items())
    assert bridge.connector.config.model_dump().items() >= {"skip": 1, "padding_side": "right"}.items()
    assert bridge.language.max_tokens == SMALL["positions"] + 1
    tokens = bridge.condition(["a cat"]).tokens
    assert (tokens - bridge.condition(["a dog"]).tokens).abs().max() > 1e-3
    bridge.save_pretrained(tmp_path / "run")
    pipe = BridgePipeline.from_pretrained(tmp_path / "run", device="cpu")
    assert torch.equal(pipe.bridge.condition(["a cat"]).tokens, tokens)
    assert len(pipe("a cat", num_inference_steps=1, height=32, width=32).images) == 1
    with pytest.raises(SystemExit):
        app(["import", "rouwei", "--help"])
    assert "--template" in capsys.readouterr().out


def test_t5gemma_s_adapter_is_read_as_it_was_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lavibridge.interop.rouwei._T5GEMMA_WIDTH", 32)  # the toy's
    write_adapter(tmp_path / "adapter.safetensors", 32, wide=3)
    bridge = import_released("rouwei", tmp_path / "adapter.safetensors", T5GEMMA, SDXL, device="cpu")
    assert bridge.language.config.template == "{prompt}<eos>"
    options = bridge.connector.config.model_dump()
    assert (options["padding_side"], options["skip"], options["wide_blocks"]) == ("left", 0, 3)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "adapter.safetensors"
    state = write_adapter(path, 32)
    with pytest.raises(RecipeError, match=r"give language\.template \(--template\)"):
        import_released("rouwei", path, {"kind": "gemma", "source": "random"}, SDXL)
    with pytest.raises(ModelError, match="does not fit: it has 84 weights and needs 73"):  # it has no pooling
        import_released("rouwei", path, GEMMA, {"kind": "pixart", "source": "random"})
    save_file({name: value for name, value in state.items() if name != "pooling_token"}, path)
    with pytest.raises(ModelError, match="is not one of RouWei's adapters: it lacks pooling_token"):
        import_released("rouwei", path, GEMMA, SDXL)
    save_file(state | {"more": torch.ones(1)}, path)
    with pytest.raises(ModelError, match="more"):
        import_released("rouwei", path, GEMMA, SDXL)
    write_adapter(path, 40)
    with pytest.raises(ModelError, match="features of width 40"):
        import_released("rouwei", path, GEMMA, SDXL)
