"""The probe finds words at their place, knows what is known, and is at chance where nothing is."""

import pytest

from lavibridge.bridge.choices import model_of_choice
from lavibridge.study.ceiling import CEILING_CHANCE, _phrase, measure_ceiling
from lavibridge.world.scene import COLORS, SHAPES
from lavibridge.world.words import SYNONYMS


def test_both_words_are_where_they_are_said_to_be() -> None:
    for color in COLORS:
        for shape in SHAPES:
            for hue in (color, *SYNONYMS[color]):
                for noun in (shape, *SYNONYMS[shape]):
                    phrase = _phrase(color, shape, hue, noun)
                    assert phrase.text[slice(*phrase.place("color"))] == hue
                    assert phrase.text[slice(*phrase.place("shape"))] == noun


def test_a_model_that_has_read_the_words_is_told_from_one_of_random_weights() -> None:
    taught = measure_ceiling(model_of_choice("language", "mini-llama").eval(), None)
    assert list(taught) == [*(f"layer {layer}" for layer in range(7)), "read"]
    assert taught["read"].words == {"color": 16, "shape": 12}
    assert taught["layer 2"].color.low > 0.5
    assert taught["layer 2"].shape.low > 0.5
    blank = measure_ceiling(model_of_choice("language", {"kind": "clip", "source": "random"}).eval(), None)
    for known in blank.values():
        assert known.color.low < 2 * CEILING_CHANCE["color"]
        assert known.shape.low < 2 * CEILING_CHANCE["shape"]


@pytest.mark.parametrize(("read", "layer"), [("last", "layer 2"), ({"layer": 1}, "layer 1")])
def test_what_is_read_is_the_layer_that_is_read(read: object, layer: str) -> None:
    from lavibridge.study.ceiling_cache import READ_OUT_ADAPTER

    model = model_of_choice("language", {"kind": "llama", "source": "random"}).eval()
    found = measure_ceiling(model, READ_OUT_ADAPTER.validate_python(read))
    assert found["read"] == found[layer]
