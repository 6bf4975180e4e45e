"""Every pretraining learns in a few steps on a little data and leaves a folder that its library opens."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModel, AutoModelForImageClassification, AutoTokenizer, T5EncoderModel

from lavibridge import BridgePipeline
from lavibridge.core.files import read_json
from lavibridge.core.paths import models_folder
from lavibridge.zoo import tokenizers
from lavibridge.zoo.autoencoder import AutoencoderPretraining
from lavibridge.zoo.bert import BertPretraining
from lavibridge.zoo.classifier import CLASSIFIER_LABELS, ClassifierPretraining, labels_of_scene
from lavibridge.zoo.clip import ClipPretraining
from lavibridge.zoo.latent_diffusion import LatentDiffusionPretraining
from lavibridge.zoo.ldm import LatentDiffusionBertPretraining
from lavibridge.zoo.llama import LlamaPretraining
from lavibridge.zoo.pixart import PixArtPretraining, pixart_log_variances
from lavibridge.zoo.pretraining import Pretraining, export_pretraining, run_pretraining
from lavibridge.zoo.scene_pool import draw_scene_pool, sample_scene_pool, scene_pool_images
from lavibridge.zoo.scorers import labels_of_prompt
from lavibridge.zoo.sd3 import T5_TOKENS, StableDiffusion3Pretraining, widen_encoder
from lavibridge.zoo.stable_diffusion import StableDiffusionPretraining
from lavibridge.zoo.t5 import T5SmallPretraining, corrupt_spans

TEXTS = {
    "mini-clip": lambda: ClipPretraining(pool=40),
    "mini-t5-small": lambda: T5SmallPretraining(documents=60),
    "mini-bert": lambda: BertPretraining(documents=60),
    "mini-llama": lambda: LlamaPretraining(documents=200),
}


@pytest.fixture(scope="module")
def corpus() -> tuple[str, ...]:
    """A tenth of the text, in whose tokenizers common words are whole pieces too; written once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizers, "DOCUMENTS", 800)
        return tuple(tokenizers._corpus())


@pytest.fixture(autouse=True)
def little_text(corpus: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokenizers are trained on that text."""
    monkeypatch.setattr(tokenizers, "_corpus", lambda: iter(corpus))


def _small(job: Pretraining) -> Pretraining:
    job.batch = 4
    job.scores = dict  # type: ignore[method-assign]
    return job


def trained(job: Pretraining, work: Path, steps: int = 2) -> float:
    """The share of the weights' tensors that a few steps change."""
    _small(job)
    before = [p.detach().clone() for p in job.networks.parameters()]
    run_pretraining(job, work, steps=steps)
    pairs = zip(before, job.networks.parameters(), strict=True)
    return float(np.mean([not torch.equal(was, now) for was, now in pairs]))


@pytest.mark.parametrize("name", TEXTS)
def test_language_models_train_and_are_ordinary_folders(name: str, tmp_path: Path) -> None:
    job = TEXTS[name]()
    assert job.name == name
    assert trained(job, tmp_path / "work") > 0.9
    export_pretraining(job, tmp_path / "work", tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    words = "a red disc to the left of a box"
    ids = tokenizer(words)["input_ids"]
    assert len(ids) <= 13, "common words are whole pieces"
    assert " ".join(tokenizer.decode(ids, skip_special_tokens=True).split()) == words
    loaded = AutoModel.from_pretrained(tmp_path / "model")
    text = getattr(loaded, "text_model", loaded)  # CLIP has two towers
    rows = text.get_input_embeddings().num_embeddings
    assert len(tokenizer) <= rows


def test_the_classifier_trains_and_is_an_ordinary_folder(tmp_path: Path) -> None:
    job = ClassifierPretraining(pool=60, held_out=20)
    assert trained(job, tmp_path / "work", steps=3) > 0.9
    export_pretraining(job, tmp_path / "work", tmp_path / "model")
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "model", dtype=torch.float32)
    pairs = sample_scene_pool(5, 3)
    for pair in pairs:
        said = {
            label for label, true in zip(CLASSIFIER_LABELS, labels_of_scene(pair.scene), strict=True) if true
        }
        assert {thing.shape for thing in pair.scene.things} <= said
        assert f"{len(pair.scene.things)} things" in said
        assert set(labels_of_prompt(pair.spec)) <= said | {"solid"}
    assert model(pixel_values=scene_pool_images(draw_scene_pool(pairs))).logits.shape == (
        3,
        len(CLASSIFIER_LABELS),
    )
    assert tuple(model.config.id2label[index] for index in range(len(CLASSIFIER_LABELS))) == CLASSIFIER_LABELS


def test_the_autoencoder_s_encoder_stays_as_it_is_while_its_decoder_learns_on(tmp_path: Path) -> None:
    job = AutoencoderPretraining(pool=40, held_out=4)
    job.batch, job.ENCODER_UNTIL = 2, 1
    job.scores = dict  # type: ignore[method-assign]
    run_pretraining(job, tmp_path / "work", steps=1)
    before = {name: value.clone() for name, value in job.network.state_dict().items()}
    run_pretraining(job, tmp_path / "work", steps=3)
    changed = {
        name.split(".")[0]
        for name, value in job.network.state_dict().items()
        if not value.equal(before[name])
    }
    assert changed == {"decoder", "post_quant_conv"}


def image_job(name: str) -> LatentDiffusionPretraining:
    if name == "mini-sd":
        return StableDiffusionPretraining(pool=40)
    if name == "mini-ldm":
        ldm = LatentDiffusionBertPretraining(pool=40)
        ldm.distillation_steps = 1
        return ldm
    if name == "mini-sd3":
        return StableDiffusion3Pretraining(pool=40)
    return PixArtPretraining(t5=models_folder() / "mini-t5-small", pool=40)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    "name",
    [
        "mini-sd",
        "mini-sd3",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("mini-ldm", "mini-pixart")),
    ],
)
def test_image_models_train_and_diffusers_opens_them(name: str, tmp_path: Path) -> None:
    job = image_job(name)
    assert job.name == name
    assert trained(job, tmp_path / "work", steps=3) > 0.9
    export_pretraining(job, tmp_path / "work", tmp_path / "model")
    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "model", torch_dtype=torch.float32)
    assert type(pipeline) is type(job.pipeline())
    job.draw_options = {**job.draw_options, "num_inference_steps": 4}  # type: ignore[misc]
    drawn = job.draw(["a red circle", "a blue ring"], [0, 1])
    assert drawn.shape == (2, 64, 64, 3)
    alone = job.draw(["a blue ring"], [1])[0]
    assert np.allclose(alone, drawn[1], atol=1e-4), "a picture does not depend on its batch"
    if name == "mini-pixart":  # pads are masked, in its text encoder too
        tokens, mask, _, _ = pipeline.encode_prompt("a red circle", do_classifier_free_guidance=False)
        ours = BridgePipeline.native(tmp_path / "model", device="cpu").bridge.condition(["a red circle"])
        assert torch.allclose(ours.tokens[ours.mask], tokens[mask.bool()], atol=1e-4)
    again = image_job(name)
    run_pretraining(_small(again), tmp_path / "again", steps=4, init_from=tmp_path / "model")
    assert read_json(tmp_path / "again" / "position.json")["step"] == 4, "three steps were there already"
    was, now = (
        torch.cat(
            [p.detach().flatten() for part, p in each.networks.named_parameters() if "questions" not in part]
        )
        for each in (job, again)
    )
    assert (now - was).norm() < 0.05 * was.norm(), (
        "it begins with the folder's weights; questions are no part"
    )


def test_what_mini_sd3_learns_from_is_what_its_pipeline_shows_the_denoiser(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = StableDiffusion3Pretraining(pool=40)
    captions = ["a red circle", "a small striped green star above a blue ring"]
    job.is_padded = job.reads_t5 = True
    monkeypatch.setattr("lavibridge.zoo.sd3.T5_DROPOUT", 0.0)
    read = job.read(captions)
    tokens, _, pooled, _ = job.pipeline().encode_prompt(
        captions, captions, captions, do_classifier_free_guidance=False
    )
    assert tokens.shape[1] == 64 + T5_TOKENS
    torch.testing.assert_close(read.tokens, tokens, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(read.pooled, pooled, atol=1e-5, rtol=1e-5)


def test_a_wider_t5_gives_the_same_features_and_zeros_behind() -> None:
    folder = models_folder() / "mini-t5-small"
    narrow = T5EncoderModel.from_pretrained(folder).float().eval()
    ids = AutoTokenizer.from_pretrained(folder)("three small green stars", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        expected, found = narrow(ids).last_hidden_state, widen_encoder(narrow, 256)(ids).last_hidden_state
    torch.testing.assert_close(found[..., : expected.shape[-1]], expected, atol=1e-5, rtol=1e-4)
    assert not found[..., expected.shape[-1] :].any()


@given(st.integers(1, 60), st.integers(0, 1000))
def test_corrupted_text_can_be_put_together_again(length: int, seed: int) -> None:
    ids, sentinels = list(range(100, 100 + length)), list(range(20))
    left, right = corrupt_spans(np.random.default_rng(seed), ids, sentinels)
    assert [token for token in left if token < 20] == [token for token in right if token < 20][:-1]
    spans: dict[int, list[int]] = {}
    for token in right:
        if token < 20:
            spans[token] = []
            last = token
        else:
            spans[last].append(token)
    rebuilt = [piece for token in left for piece in (spans[token] if token < 20 else [token])]
    assert rebuilt == ids


def test_the_bounds_of_the_variance_are_in_order() -> None:
    betas = torch.linspace(0.0001, 0.02, 1000)
    upper, lower = pixart_log_variances(betas, torch.cumprod(1 - betas, 0))
    assert bool((upper[1:] >= lower[1:]).all())
    assert torch.isfinite(lower).all()
