"""What a caption's words belong to: labels that agree with the scene, which tokens can learn."""

import torch

from lavibridge.world.captions import evaluation_prompts
from lavibridge.zoo.attribute_binding_probe import (
    BINDING_ATTRIBUTES,
    IGNORE_INDEX,
    AttributeBindingProbe,
    binding_labels,
)


def test_words_of_two_things_belong_to_their_own_and_say_what_the_caption_says() -> None:
    asked = 0
    for pair in evaluation_prompts("two", 100):
        words = pair.caption.split()
        answers = binding_labels(words)
        told = [
            [
                0 if (value := getattr(group, kind)) is None else 1 + BINDING_ATTRIBUTES[kind].index(value)
                for kind in BINDING_ATTRIBUTES
            ]
            for group in pair.spec.groups
        ]
        found = [answer.tolist() for answer in answers if answer[0] != IGNORE_INDEX]
        assert found == sorted(found, key=told.index), "the first thing's words come first"
        assert [told[0], told[1]] == [found[0], found[-1]]
        said = {value for group in told for value in group if value}
        assert len(found) >= len(said) / 2
        asked += len(found)
        for word, answer in zip(words, answers.tolist(), strict=True):
            is_meant = any(word in values for values in BINDING_ATTRIBUTES.values())
            assert (answer[0] != IGNORE_INDEX) == is_meant, word
    assert asked > 400


def test_plurals_are_words_and_what_no_shape_follows_is_not_asked() -> None:
    assert binding_labels(["three", "small", "red", "circles"])[1:].tolist() == [[1, 0, 1, 1]] * 3
    assert binding_labels(["a", "circle", "and", "no", "orange", "thing"])[:, 0].tolist() == [
        -1,
        0,
        -1,
        -1,
        -1,
        -1,
    ]
    assert binding_labels([]).shape == (0, 4)


def test_tokens_can_learn_the_answers() -> None:
    torch.manual_seed(0)
    true = torch.stack([binding_labels(["a", "small", "red", "circle", "and", "a", "blue", "star"])] * 2)
    questions = AttributeBindingProbe(24)
    tokens = torch.randn(2, true.shape[1], 24, requires_grad=True)
    optimizer = torch.optim.Adam([tokens, *questions.parameters()], lr=0.05)
    before = questions(tokens, true)
    for _ in range(100):
        optimizer.zero_grad()
        questions(tokens, true).backward()
        optimizer.step()
    assert questions(tokens, true) < 0.1 * before
    nobody = questions(tokens, torch.full_like(true, IGNORE_INDEX))
    assert nobody.item() == 0
    nobody.backward()
