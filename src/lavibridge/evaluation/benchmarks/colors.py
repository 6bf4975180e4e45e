"""GenEval's colour classifier: the colour whose texts are nearest to the crop under a CLIP.

    text(colour, name) = unit(mean over the templates of unit(CLIP(template)))

If the detector segments, everything around the object is grey. Ghosh et al. 2023, arXiv 2310.11513.
"""

from collections.abc import Sequence

from PIL import Image
from torch.nn.functional import normalize

from lavibridge.evaluation.benchmarks.boxes import Box
from lavibridge.evaluation.benchmarks.geneval import GENEVAL_COLORS
from lavibridge.evaluation.dual_encoder import DualEncoder

_TEMPLATES = (
    "a photo of a {color} {name}",
    "a photo of a {color}-colored {name}",
    "a photo of a {color} object",
)
_GREY = (153, 153, 153)


def classify_colors(clip: DualEncoder, picture: Image.Image, boxes: Sequence[Box], name: str) -> list[str]:
    """Classify the colour of each box of a name in a picture."""
    if not boxes:
        return []
    texts = [form.format(color=color, name=name) for color in GENEVAL_COLORS for form in _TEMPLATES]
    named = normalize(clip.texts(texts).unflatten(0, (len(GENEVAL_COLORS), -1)).mean(1), dim=-1)
    nearest = (clip.pictures([crop_for_colors(picture, box) for box in boxes]) @ named.T).argmax(-1)
    return [GENEVAL_COLORS[number] for number in nearest.tolist()]


def crop_for_colors(picture: Image.Image, box: Box) -> Image.Image:
    """Crop a box, at least one pixel; with a mask, on grey."""
    if box.mask is not None:
        grey = Image.new("RGB", picture.size, _GREY)
        picture = Image.composite(picture, grey, Image.fromarray(box.mask))
    left = min(max(round(box.left), 0), picture.width - 1)
    top = min(max(round(box.top), 0), picture.height - 1)
    right, bottom = min(round(box.right), picture.width), min(round(box.bottom), picture.height)
    return picture.crop((left, top, max(right, left + 1), max(bottom, top + 1)))
