"""BLIP and image-text models with random weights: probabilities are those of the models' own passes."""

import pytest
import torch
from PIL import Image

from lavibridge.core.errors import ModelError
from lavibridge.evaluation.benchmarks.blip import Blip, normalize_blip_question, preprocess_for_blip
from lavibridge.evaluation.benchmarks.image_text_model import ImageTextModel, image_text_chat_template


def test_blip_is_asked_as_its_own_generation_asks(toy, pictures):
    blip = Blip(toy("blip"))
    model, tokenizer = blip.network.model, blip.network.tokenizer
    ids = tokenizer("a red cat?", return_tensors="pt")["input_ids"]
    ids[:, 0] = len(tokenizer) + 1
    made = model.generate(
        input_ids=ids,
        pixel_values=preprocess_for_blip(pictures[0])[None],
        interpolate_pos_encoding=True,
        max_new_tokens=1,
        return_dict_in_generate=True,
        output_logits=True,
    )
    both = made.logits[0][0, tokenizer.convert_tokens_to_ids(["yes", "no"])]
    expected = float(both.softmax(-1)[0])
    assert blip.yes_probabilities(pictures[0], ["A (red) cat?"]) == [pytest.approx(expected, abs=1e-6)]


def test_blips_answers_do_not_hang_on_other_questions(toy, pictures):
    blip = Blip(toy("blip"))
    questions = ["a cat?", "a red dog and a bench?"]
    together = blip.yes_probabilities(pictures[0], questions)
    assert together == pytest.approx(
        [blip.yes_probabilities(pictures[0], [each])[0] for each in questions], abs=1e-6
    )
    assert together[0] != together[1]
    assert blip.yes_probabilities(pictures[1], questions) != pytest.approx(together, abs=1e-6)


def test_blips_input():
    assert normalize_blip_question('A "red"  (cat);\n#1: *?~!') == "a red cat 1 ?"
    white = preprocess_for_blip(Image.new("RGB", (30, 60), "white"))
    assert white.shape == (3, 480, 480)
    assert white[:, 0, 0].tolist() == pytest.approx([1.9303, 2.0749, 2.1459], abs=1e-3)


def test_only_a_blip_is_asked(toy):
    with pytest.raises(ModelError, match="capfilt"):
        Blip(toy("clip"))


def test_an_answers_chance_is_that_of_its_first_token(toy, pictures):
    image_text_model = ImageTextModel(toy("llava"), "float32")
    processor, model = (
        image_text_model.network.part("AutoProcessor", backend="pil"),
        image_text_model.network.model,
    )
    inputs = processor(images=pictures[:1], text="user: <|image|>Is it? answer:", return_tensors="pt")
    with torch.no_grad():
        chance = model(**inputs).logits[0, -1].softmax(-1)
    yes, no = processor.tokenizer.convert_tokens_to_ids(["Yes", "no"])
    found = image_text_model.answer_probabilities(
        pictures[0], ["Is it?"] * 3, [("Yes",), ("Yes", "Yes", "no"), (" ",)]
    )
    assert found == pytest.approx([float(chance[yes]), float(chance[yes] + chance[no]), 0], abs=1e-7)


@pytest.mark.parametrize("name", ["llava", "qwen"])
def test_answers_do_not_hang_on_other_questions(name, toy, pictures):
    image_text_model = ImageTextModel(toy(name), "float32")
    questions = [f"Is it {'very ' * i}red?" for i in range(10)]  # more than are asked at a time
    together = image_text_model.yes_probabilities(pictures[0], questions)
    assert together == pytest.approx(
        [image_text_model.yes_probabilities(pictures[0], [each])[0] for each in questions], abs=1e-5
    )
    assert all(0 < value < 1 for value in together)
    assert image_text_model.yes_probabilities(pictures[1], questions) != pytest.approx(together, abs=1e-4)


@pytest.mark.parametrize("name", ["llava", "qwen"])
def test_any_words_can_be_asked(name, toy, pictures):
    image_text_model = ImageTextModel(toy(name), "float32")
    for words in ("<|image|> two <|image|>", "", "a, b/c\n😀", "long " * 100):
        assert 0 < image_text_model.yes_probabilities(pictures[0], [words])[0] < 1


def test_what_has_no_chat_is_refused_before_weights_are_read(toy):
    with pytest.raises(ModelError, match="no chat template"):
        ImageTextModel(toy("clip"), "float32")
    with pytest.raises(ModelError, match="is an encoder-decoder"):
        ImageTextModel("mini-t5-small", "float32")


def test_a_template_may_lie_in_any_of_a_models_files(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "from the tokenizer"}')
    assert image_text_chat_template(str(tmp_path)) == "from the tokenizer"
    (tmp_path / "chat_template.json").write_text('{"chat_template": "of its own"}')
    assert image_text_chat_template(str(tmp_path)) == "of its own"
