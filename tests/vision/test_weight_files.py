"""Variants, shards, and autoencoders that overflow in half precision."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_pipelines import pipeline

from lavibridge import BridgePipeline
from lavibridge.bridge.choices import model_of_choice
from lavibridge.core.contracts import LAST_LAYER
from lavibridge.core.errors import ModelError
from lavibridge.core.identity import source_identity
from lavibridge.training.cache.keys import feature_maker_key
from lavibridge.training.checkpoints.run_fingerprint import section_fingerprint

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:diffusers")


def picture(**choice: Any) -> np.ndarray[Any, Any]:
    pipe = BridgePipeline.native(choice, device="cpu")
    return np.asarray(
        pipe("a red circle", num_inference_steps=2, height=32, width=32, seed=0, output_type="np").images
    )


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3"])
def test_sharded_weights_are_the_same_model(name: str, tmp_path: Path) -> None:
    pipe = pipeline(name)
    pipe.save_pretrained(tmp_path / "whole")
    pipe.save_pretrained(tmp_path / "sharded", max_shard_size="60KB")
    for room in ("vae", "text_encoder"):
        assert len(list((tmp_path / "sharded" / room).glob("*-00001-of-*.safetensors"))) == 1
    found, expected = picture(source=tmp_path / "sharded"), picture(source=tmp_path / "whole")
    # Kernels differ with the place of a weight in memory, which the file decides.
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shard", ["5GB", "60KB"], ids=["whole", "sharded"])
@pytest.mark.parametrize("name", ["sd", "sd3"])
def test_a_variant_is_read_where_it_is_named(name: str, shard: str, tmp_path: Path) -> None:
    pipe = pipeline(name).to(torch.float16)
    pipe.save_pretrained(tmp_path / "plain", max_shard_size=shard)
    pipe.save_pretrained(tmp_path / "fp16", variant="fp16", max_shard_size=shard)
    assert list((tmp_path / "fp16" / "vae").glob("*.fp16*.safetensors"))
    found = picture(source=tmp_path / "fp16", variant="fp16")
    assert np.array_equal(found, picture(source=tmp_path / "plain"))
    with pytest.raises(ModelError, match=r"only the variant .*set vision\.variant to fp16"):
        model_of_choice("vision", tmp_path / "fp16")
    with pytest.raises(ModelError, match="cannot be loaded"):
        model_of_choice("vision", {"source": tmp_path / "plain", "variant": "bf16"})


def test_the_variant_belongs_to_the_identity(tmp_path: Path) -> None:
    pipe = pipeline("sd")
    pipe.save_pretrained(tmp_path)
    pipe.to(torch.float16).save_pretrained(tmp_path, variant="fp16")
    plain, half = (
        model_of_choice("vision", {"source": tmp_path, **options}) for options in ({}, {"variant": "fp16"})
    )
    assert plain.identity() != half.identity()
    runs = [section_fingerprint(model.config.model_dump()) for model in (plain, half)]
    assert runs[0] != runs[1], "a run and its start are of one variant"
    assert runs[0] == source_identity(str(tmp_path))
    texts = [BridgePipeline.native(model, device="cpu").bridge.language for model in (plain, half)]
    keys = [feature_maker_key(text, LAST_LAYER, torch.float32) for text in texts]
    assert keys[0] != keys[1], "a cache of features holds those of one variant"
    assert "variant" not in plain.identity()


def test_an_autoencoder_that_overflows_in_half_precision_decodes_in_float32(tmp_path: Path) -> None:
    """As SDXL's does: values within it exceed 65,504, and a norm makes them small again."""
    pipe = pipeline("sdxl")
    with torch.no_grad():
        pipe.vae.decoder.conv_in.weight.mul_(1e6)
        pipe.vae.decoder.conv_in.bias.mul_(1e6)
    pipe.vae.register_to_config(force_upcast=True)
    pipe.save_pretrained(tmp_path)
    model: Any = model_of_choice("vision", {"source": tmp_path, "dtype": "float16"})
    assert model.backbone.dtype == torch.float16
    latents = torch.randn(1, model.channels, 8, 8, generator=torch.Generator().manual_seed(0))
    assert model.decode(latents).isfinite().all()
    half = pipe.vae.to(torch.float16)
    with torch.no_grad():
        broken = half.decode(latents.to(torch.float16) / half.config.scaling_factor).sample
    assert not broken.isfinite().all(), "the toy overflows where it is decoded in half precision"
