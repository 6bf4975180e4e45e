"""Detectors of the real classes with random weights: boxes that transformers finds, by the names asked."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import GroundingDinoProcessor

from lavibridge.core.errors import ModelError
from lavibridge.evaluation.benchmarks.boxes import Box
from lavibridge.evaluation.benchmarks.colors import classify_colors, crop_for_colors
from lavibridge.evaluation.benchmarks.detectors.base import find_detector
from lavibridge.evaluation.benchmarks.detectors.closed_vocabulary import class_ids
from lavibridge.evaluation.benchmarks.detectors.grounding_dino import grounding_sentence, grounding_tokens
from lavibridge.evaluation.benchmarks.detectors.mask2former import mask_bounding_box
from lavibridge.evaluation.dual_encoder import DualEncoder
from lavibridge.evaluation.networks import PretrainedNetwork

KINDS = {
    "owl": "OwlDetector",
    "yolos": "ClosedVocabularyDetector",
    "mask2former": "Mask2FormerDetector",
    "grounding_dino": "GroundingDinoDetector",
}
LOW = {"mask2former": 0.05}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_finds_what_it_is_asked_for(name, toy, pictures):
    detector = find_detector(toy(name))
    assert type(detector).__name__ == KINDS[name]
    names = [["cat", "dog"], ["cat"]]
    threshold = LOW.get(name, 0.2)
    found = detector.detect(pictures, names, threshold)
    assert found[0]
    for boxes, asked in zip(found, names, strict=True):
        assert {box.name for box in boxes} <= set(asked)
        assert all(threshold < box.score <= 1 for box in boxes)
    again = detector.detect(pictures[:1], names[:1], threshold)[0]
    assert [box.record() for box in again] == [box.record() for box in found[0]]
    assert detector.detect(pictures[:1], [[]], threshold) == [[]]
    assert all(not boxes for boxes in detector.detect(pictures, names, 0.99999))


def test_classes_of_a_list_have_other_names(toy, pictures):
    detector = find_detector(toy("yolos"))
    assert detector.unknown(["cat", "woman", "computer mouse", "zebra"]) == ["zebra"]
    found = detector.detect(pictures[:1], [["man", "woman"]], 0.1)[0]
    men, women = ([box for box in found if box.name == name] for name in ("man", "woman"))
    assert [box.left for box in men] == [box.left for box in women]
    assert class_ids({"id2label": {"7": "DINING_TABLE", "8": "tvmonitor"}}, ["dining table", "tv"]) == {
        "dining table": 7,
        "tv": 8,
    }


def test_segments_have_their_pixels_and_the_box_around_them(toy, pictures):
    found = find_detector(toy("mask2former")).detect(pictures[:1], [["cat", "dog", "person"]], 0.05)[0]
    for box in found:
        assert box.mask is not None
        assert box.mask.shape == (60, 90)
        inside = box.mask[int(box.top) : int(box.bottom), int(box.left) : int(box.right)]
        assert inside.sum() == box.mask.sum() > 0
    mask = np.zeros((5, 8), dtype=bool)
    mask[2:4, 1:7] = True
    box = mask_bounding_box(mask, "cat", 0.5)
    assert (box.left, box.top, box.right, box.bottom) == (1, 2, 7, 4)


def test_grounded_boxes_are_those_of_transformers(toy, pictures):
    detector = find_detector(toy("grounding_dino"))
    network = detector.network
    processor = GroundingDinoProcessor(network.processor, network.tokenizer)
    found = detector.detect(pictures[:1], [["cat", "red bench"]], 0.2)[0]
    words = network.tokenizer("cat. red bench.", return_tensors="pt")
    seen = network.processor(images=pictures[:1], return_tensors="pt")
    with torch.no_grad():
        output = network.model(**words, **seen)
    theirs = processor.post_process_grounded_object_detection(
        output, words["input_ids"], threshold=0.2, text_threshold=0.2, target_sizes=[(60, 90)]
    )[0]["boxes"]
    ours = torch.tensor([[box.left, box.top, box.right, box.bottom] for box in found])
    assert len(ours)
    assert torch.cdist(ours, theirs).amin(dim=1).max() < 1e-3


def test_words_of_a_sentence():
    sentence, spans = grounding_sentence(["Cat", "red bench."])
    assert sentence == "cat. red bench."
    assert [sentence[start:end] for start, end in spans] == ["cat", "red bench"]
    offsets = [(0, 0), (0, 3), (3, 4), (5, 8), (9, 14), (14, 15), (0, 0)]
    assert [grounding_tokens(offsets, *span) for span in spans] == [[1], [3, 4]]


def test_what_detects_nothing_is_refused(toy, tmp_path):
    with pytest.raises(ModelError, match="none of"):
        find_detector(toy("clip"))
    with pytest.raises(ModelError, match="no model folder"):
        find_detector(str(tmp_path / "absent"))


def test_cut_outs_and_their_colors(toy):
    picture = Image.new("RGB", (20, 10), "red")
    mask = np.zeros((10, 20), dtype=bool)
    mask[2:6, 4:8] = True
    box = Box(name="cat", score=1.0, left=3.0, top=2.0, right=9.0, bottom=6.0, mask=mask)
    cut = np.asarray(crop_for_colors(picture, box))
    assert cut.shape == (4, 6, 3)
    assert (cut[:, 0] == 153).all()
    assert (cut[:, 1] == (255, 0, 0)).all()
    beyond = Box(name="cat", score=1.0, left=-5.0, top=9.9, right=99.0, bottom=9.9)
    assert crop_for_colors(picture, beyond).size == (20, 1)
    clip = DualEncoder(PretrainedNetwork(toy("clip")))
    found = classify_colors(clip, picture, [box, beyond, box], "cat")
    assert found[0] == found[2]
    assert len(found) == 3
    assert classify_colors(clip, picture, [], "cat") == []
