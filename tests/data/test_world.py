"""Pairs of the miniature world as data: the mix of categories is the recipe's to choose."""

import pytest

from lavibridge.core.config import validate_config
from lavibridge.core.errors import RecipeError
from lavibridge.data.pictures.rejected import RejectedPictures
from lavibridge.data.world import World


def opened(**settings: object) -> World:
    return World(validate_config(World.Config, settings, "data"), RejectedPictures())


def test_only_categories_of_the_mix_occur() -> None:
    data = opened(scenes=60, mix={"one": 3, "counting": 1})
    found = [data.imagine(index).category for index in range(60)]
    assert set(found) == {"one", "counting"}
    assert 30 < found.count("one") < 58  # 45 expected


def test_another_mix_is_another_set() -> None:
    plain, mixed = opened(scenes=20), opened(scenes=20, mix={"one": 1.0})
    assert plain.fingerprint() != mixed.fingerprint()


@pytest.mark.parametrize(
    ("mix", "message"),
    [
        ({"spatal": 1.0}, "did you mean 'spatial'"),
        ({"one": 0.0}, "above 0"),
        ({"unseen-pairs": 1.0}, "not a category"),
    ],
)
def test_a_mix_that_cannot_be_is_refused(mix: dict[str, float], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        opened(mix=mix)
