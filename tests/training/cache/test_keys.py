"""Stale is impossible: whatever an entry depends on is in its name."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lavibridge.bridge import Bridge
from lavibridge.core.contracts import ReadingSpec
from lavibridge.core.errors import DataError
from lavibridge.data.base import Dataset
from lavibridge.language.base import LanguageModel
from lavibridge.language.llama import Llama
from lavibridge.training.cache.keys import caption_key, feature_maker_key, key_digest, latent_maker_key
from lavibridge.training.cache.latents import LatentContents
from lavibridge.training.data.sampler import Visit

PLAIN = Visit(index=0, size=(16, 16))
LAST = ReadingSpec()


@given(st.lists(st.text(max_size=3), max_size=3), st.lists(st.text(max_size=3), max_size=3))
@settings(max_examples=50, deadline=None)
def test_parts_do_not_run_together(first: list[str], second: list[str]) -> None:
    assert (key_digest(*first) == key_digest(*second)) == (first == second)


def test_a_picture_is_named_by_its_bytes_and_form_not_by_its_place(
    pictures: Path, opened: Callable[..., Dataset]
) -> None:
    names = LatentContents(opened(pictures), b"maker")
    forms = [
        PLAIN,
        Visit(index=1, size=(16, 16)),
        Visit(index=0, size=(16, 24)),
        Visit(index=0, size=(24, 16)),
        Visit(index=0, size=(16, 16), flipped=True),
    ]
    keys = [names(form) for form in forms]
    assert len(set(keys)) == len(keys)
    assert names(Visit(index=3, size=(16, 16))) == keys[0]  # the same bytes under another name
    assert LatentContents(opened(pictures), b"another")(PLAIN) != keys[0]
    (pictures / "0.png").rename(pictures / "00.png")
    (pictures / "0.txt").rename(pictures / "00.txt")
    assert LatentContents(opened(pictures), b"maker")(PLAIN) == keys[0]


def test_a_replaced_picture_is_another_and_one_replaced_while_it_is_read_is_refused(
    pictures: Path, opened: Callable[..., Dataset]
) -> None:
    names = LatentContents(opened(pictures), b"maker")
    before = names(PLAIN)
    names.check(PLAIN)
    names.hashes[0] ^= 1  # as if it had been another picture when the key was made
    with pytest.raises(DataError, match=r"0\.png has changed during training"):
        names.check(PLAIN)
    Image.new("RGB", (24, 20), (9, 9, 9)).save(pictures / "0.png")
    assert LatentContents(opened(pictures), b"maker")(PLAIN) != before


@contextmanager
def changed(weight: torch.Tensor) -> Iterator[None]:
    """One weight, in its last bit."""
    bits = weight.data.view(torch.int32).flatten()
    bits[0] ^= 1
    yield
    bits[0] ^= 1


def test_latents_are_named_by_the_autoencoder(composed: Callable[..., Bridge]) -> None:
    vision = composed().vision
    known = latent_maker_key(vision, torch.float32)
    assert latent_maker_key(composed("t5").vision, torch.float32) == known
    assert latent_maker_key(vision, torch.bfloat16) != known
    with changed(next(vision.autoencoder.parameters())):
        assert latent_maker_key(vision, torch.float32) != known
    with changed(next(vision.backbone.parameters())):
        assert latent_maker_key(vision, torch.float32) == known
    scale = vision.autoencoder.config.scaling_factor
    vision.autoencoder.register_to_config(scaling_factor=2 * scale)
    assert latent_maker_key(vision, torch.float32) != known
    vision.autoencoder.register_to_config(scaling_factor=scale)
    assert latent_maker_key(vision, torch.float32) == known


def llama(**options: object) -> LanguageModel:
    return Llama(Llama.Config.model_validate({"source": "random", **options}))


def test_features_are_named_by_the_language_model_and_what_is_read_of_it() -> None:
    model = llama()
    makers = [
        feature_maker_key(model, LAST, torch.float32),
        feature_maker_key(model, LAST, torch.bfloat16),
        feature_maker_key(model, ReadingSpec(layers=(1,)), torch.float32),
        feature_maker_key(model, ReadingSpec(context_free=True), torch.float32),
        *(
            feature_maker_key(llama(**options), LAST, torch.float32)
            for options in (
                {"max_tokens": 8},
                {"template": "draw {prompt}"},
                {"see_padding": True},
                {"dtype": "bfloat16"},
            )
        ),
    ]
    with changed(next(model.backbone.parameters())):
        makers.append(feature_maker_key(model, LAST, torch.float32))
    assert len(set(makers)) == len(makers)
    assert feature_maker_key(llama(), LAST, torch.float32) == makers[0]
    assert caption_key(makers[0], "a cat") != caption_key(makers[0], "a cat ")


def test_a_pair_is_named_by_both_its_models(composed: Callable[..., Bridge]) -> None:
    pair = composed("pair").language
    known = pair.identity()
    for part in ("inner", "other"):
        with changed(next(pair.get_submodule(part).parameters())):
            assert pair.identity() != known


def test_a_folder_of_weights_is_named_by_its_files_wherever_it_lies(tmp_path: Path) -> None:
    model = llama()
    for name in ("here", "there"):
        model.backbone.save_pretrained(tmp_path / name)  # type: ignore[operator]
        model.tokenizer.save_pretrained(tmp_path / name)  # type: ignore[union-attr, operator]
    here, there = (llama(source=str(tmp_path / name)) for name in ("here", "there"))
    assert here.identity() == there.identity()
    with open(tmp_path / "there" / "tokenizer_config.json", "a") as file:
        file.write("\n")
    assert here.identity() != there.identity()
