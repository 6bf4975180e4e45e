"""Measures what an image model draws of pictures that an image encoder reads, on withheld pairs too.

    python benchmarks/image_encoder.py pivots/mini mini-clip mini-sd --count 60

The checker scores three ways to draw the same scenes, with the same noises, against the scene's caption:

    encoder    the picture, read by the image encoder
    nearest    the caption of the nearest training picture, by the cosine of CLIP's own embeddings
    caption    the scene's own caption, read by the pivot's first language model

The pairs of colour and shape in `unseen-pairs` are in no training picture, so `nearest` cannot name them.
"""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image

from lavibridge.core.seeds import mix_seeds
from lavibridge.data.pictures.rejected import RejectedPictures
from lavibridge.data.world import World
from lavibridge.evaluation.dual_encoder import DualEncoder
from lavibridge.evaluation.networks import PretrainedNetwork
from lavibridge.evaluation.stats import wilson_interval
from lavibridge.generation.pipeline import BridgePipeline
from lavibridge.world.captions import CaptionedScene, evaluation_prompts
from lavibridge.world.checker import check_picture
from lavibridge.world.drawing import draw_scene
from lavibridge.world.scene import CANVAS

DATA = {"mix": {"one": 0.5, "two": 0.5}, "scenes": 5000}
"""The data that the half was trained on."""
WAYS = ("encoder", "nearest", "caption")


def main() -> None:
    """Draw, check and print one line for each category and way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("pivot")
    parser.add_argument("encoder")
    parser.add_argument("vision")
    parser.add_argument("--count", type=int, default=60, help="scenes of each category")
    parser.add_argument("--way", nargs="+", default=WAYS, choices=WAYS)
    parser.add_argument("--category", nargs="+", default=["one", "two", "unseen-pairs"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    pipe = BridgePipeline.from_pivot(options.pivot, None, options.vision, image_encoder=options.encoder)
    nearest = NearestCaption()
    for category in options.category:
        scenes = evaluation_prompts(category, options.count)
        pictures = [picture_of(each) for each in scenes]
        ways: Mapping[str, Sequence[Any]] = {
            "encoder": pictures,
            "nearest": [nearest(picture) for picture in pictures],
            "caption": [each.caption for each in scenes],
        }
        for way in options.way:
            prompts = ways[way]
            drawn = pipe(
                prompts,
                seed=[mix_seeds(0, number) for number in range(len(prompts))],
                quality="fast",
                guidance_scale=4.0,
            ).images
            right = sum(
                check_picture(image, each.spec).all for image, each in zip(drawn, scenes, strict=True)
            )
            low, high = wilson_interval(right, len(scenes))
            share = f"{right / len(scenes):6.1%}  {low:.1%} to {high:.1%}"
            print(f"{category:<13} {way:<8} n {len(scenes)}  {share}", flush=True)


class NearestCaption:
    """The caption of the training picture that is nearest to a picture."""

    def __init__(self) -> None:
        data = World(World.Config.model_validate(DATA), RejectedPictures())
        self.captions = [data.sample(index).captions[0] for index in range(len(data))]
        self.encoder = DualEncoder(PretrainedNetwork("mini-clip", "CLIPModel"))
        pictures = [Image.fromarray(data.picture(index, (CANVAS, CANVAS))) for index in range(len(data))]
        batches = [pictures[start : start + 64] for start in range(0, len(data), 64)]
        self.embeddings = torch.cat([self.encoder.pictures(batch) for batch in batches])

    def __call__(self, picture: Image.Image) -> str:
        """Return the caption."""
        return self.captions[int((self.encoder.pictures([picture]) @ self.embeddings.T).argmax())]


def picture_of(scene: CaptionedScene) -> Image.Image:
    """Draw a scene."""
    return Image.fromarray(draw_scene(scene.scene))


if __name__ == "__main__":
    main()
