"""Encodes each prompt once, applies its word weights, and removes its padding.

prompts --language model, in batches--> TextFeatures.split() --word weights--> EncodedPrompt
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from jaxtyping import Num
from PIL import Image
from torch import Tensor

from lavibridge.bridge import Bridge
from lavibridge.bridge.text_side import TextSide
from lavibridge.connectors.base import Connector
from lavibridge.connectors.pivot import Pivot
from lavibridge.core.contracts import Conditioning, TextFeatures
from lavibridge.core.errors import ModelError
from lavibridge.generation.emphasis import WeightedPrompt, apply_emphasis, emphasis_of_tokens
from lavibridge.pivot.image_reader import ImageReader


class EncodedPrompt:
    """The features of one prompt, and its conditioning, computed on first use."""

    def __init__(self, features: TextFeatures, conditioning: Conditioning | None = None) -> None:
        """``features`` is a batch of one without padding; ``conditioning`` likewise, if no connector is to
        compute it from them.
        """
        self.features = features
        self.is_conditioned = conditioning is not None
        """Whether its conditioning does not come from the bridge's connector."""
        self._conditioning = conditioning

    def condition(self, connector: Connector, t: Num[Tensor, " one"]) -> Conditioning:
        """Return the conditioning of this prompt, without padding, at the vision model's time ``t``.

        Computes it only once if the connector is not time-aware.
        """
        if self._conditioning is not None:
            return self._conditioning
        (conditioning,) = connector(self.features, t).split()
        if not connector.time_aware:
            self._conditioning = conditioning
        return conditioning


def encode_pictures(
    bridge: Bridge, reader: ImageReader, pictures: Mapping[WeightedPrompt, Image.Image]
) -> dict[WeightedPrompt, EncodedPrompt]:
    """Encode pictures in place of prompts, one by one, so that each keeps its bits in every batch.

    Raises ModelError if the bridge has no pivot.
    """
    if not isinstance(bridge.connector, Pivot):
        raise ModelError("only a bridge of a pivot draws what a picture shows")
    encoded = {}
    for prompt, picture in pictures.items():
        features = reader.features([picture])
        conditioning = bridge.connector.condition_slots(reader.slots(features))
        encoded[prompt] = EncodedPrompt(features, conditioning)
    return encoded


def revised_metadata(bridge: Bridge, prompts: Sequence[str]) -> list[dict[str, str]]:
    """Return for each prompt the metadata of its image: the revised prompt, if a proxy revised it."""
    texts = bridge.language.revise(prompts)
    return [
        {} if text == prompt else {"revised_prompt": text}
        for prompt, text in zip(prompts, texts, strict=True)
    ]


def encode_prompts(
    bridge: TextSide, prompts: Sequence[WeightedPrompt], batch_size: int
) -> dict[WeightedPrompt, EncodedPrompt]:
    """Encode each different prompt once, ``batch_size`` texts at a time.

    A proxy revises prompts first, but no negative ones.
    """
    language = bridge.language
    if not language.reads_negative_prompts_differently and language.config.proxy is None:
        return _encode(bridge, prompts, batch_size, False)
    negative = [prompt for prompt in prompts if prompt.is_negative]
    positive = [prompt for prompt in prompts if not prompt.is_negative]
    return _encode(bridge, negative, batch_size, True) | _encode(bridge, positive, batch_size, False)


def _encode(
    bridge: TextSide, prompts: Sequence[WeightedPrompt], batch_size: int, is_negative: bool
) -> dict[WeightedPrompt, EncodedPrompt]:
    emphasised = [prompt for prompt in dict.fromkeys(prompts) if not prompt.is_plain]
    texts = list(dict.fromkeys([*(each.text for each in prompts), *([""] if emphasised else [])]))
    features: dict[str, TextFeatures] = {}
    for start in range(0, len(texts), batch_size):
        part = texts[start : start + batch_size]
        features |= zip(part, bridge.features(part, is_negative).split(), strict=True)
    weighted = {prompt: features[prompt.text] for prompt in prompts}
    for prompt in emphasised:
        weighted[prompt] = _weigh(prompt, features[prompt.text], features[""], bridge)
    return {prompt: EncodedPrompt(each) for prompt, each in weighted.items()}


def _weigh(
    prompt: WeightedPrompt, features: TextFeatures, empty: TextFeatures, bridge: TextSide
) -> TextFeatures:
    """Apply the prompt's word weights to its features, relative to the empty prompt's."""
    weights = emphasis_of_tokens(prompt, bridge.language.spans(prompt.text))
    context_free = None
    if features.context_free is not None and empty.context_free is not None:
        context_free = apply_emphasis(features.context_free[0], empty.context_free[0], weights)[None]
    return replace(
        features,
        hidden=apply_emphasis(features.hidden[0], empty.hidden[0], weights)[None],
        context_free=context_free,
    )
