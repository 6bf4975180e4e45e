"""BLIP's probability of yes, against no, for questions about a picture, as in T2I-CompBench.

    p = P(yes) / (P(yes) + P(no))     at the first token of the answer

    picture    resized to 480 x 480, PIL bicubic; CLIP's mean and standard deviation
    question   lower case, without . ! " ( ) * # : ; ~, at most 35 tokens, starting with [ENC]

Li et al. 2022, BLIP, arXiv 2201.12086; Huang et al. 2023, T2I-CompBench, arXiv 2307.06350. transformers'
processor does not set the first token, so this module tokenises itself. The published weights take 480
pixels; those on the hub were resized to 384, and we interpolate their position embeddings back to 480.
"""

import re
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from lavibridge.core.errors import ModelError
from lavibridge.evaluation.networks import PretrainedNetwork

_SIZE = 480
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
_LONGEST = 35
BLIP_RESIZE = f"squashed to {_SIZE} x {_SIZE}, PIL bicubic"


class Blip:
    """A BLIP for visual question answering."""

    def __init__(self, source: str) -> None:
        """Find the model. Raises ModelError if it is not a BLIP for question answering."""
        self.network = PretrainedNetwork(source, "BlipForQuestionAnswering")
        if self.network.config.get("model_type") != "blip":
            raise ModelError(
                f"'{source}' is a {self.network.config.get('model_type')}; give a BLIP for question "
                f"answering, "
                "such as Salesforce/blip-vqa-capfilt-large"
            )

    @torch.inference_mode()
    def yes_probabilities(self, picture: Image.Image, questions: Sequence[str]) -> list[float]:
        """The probability of yes, 0 to 1, for each question about a picture."""
        device = self.network.device
        image_embeds = self.network.model.vision_model(
            preprocess_for_blip(picture)[None].to(device), interpolate_pos_encoding=True
        ).last_hidden_state
        # One by one: the decoder of transformers 5.23 attends to padding despite the mask.
        return [self._yes(image_embeds, question) for question in questions]

    def _yes(self, image_embeds: Float[Tensor, "1 patch width"], question: str) -> float:
        tokenizer, model = self.network.tokenizer, self.network.model
        ids = tokenizer(
            normalize_blip_question(question), truncation=True, max_length=_LONGEST, return_tensors="pt"
        )["input_ids"]
        start = model.config.text_config.bos_token_id  # [DEC]; [ENC] is the next id
        ids[:, 0] = start + 1
        question_embeds = model.text_encoder(
            input_ids=ids.to(image_embeds.device),
            attention_mask=torch.ones_like(ids, device=image_embeds.device),
            encoder_hidden_states=image_embeds,
        ).last_hidden_state
        logits = model.text_decoder(
            input_ids=torch.full((1, 1), start, device=image_embeds.device),
            encoder_hidden_states=question_embeds,
        ).logits[0, 0]
        both = tokenizer.convert_tokens_to_ids(["yes", "no"])
        return float(logits[both].float().softmax(-1)[0])


def normalize_blip_question(question: str) -> str:
    """Normalise a question as in BLIP's training."""
    kept = re.sub(r"[.!\"()*#:;~]", "", question.lower())
    return re.sub(r"\s+", " ", kept).strip()


def preprocess_for_blip(picture: Image.Image) -> Float[Tensor, "3 height width"]:
    """Resize and normalise a picture for BLIP."""
    small = picture.convert("RGB").resize((_SIZE, _SIZE), Image.Resampling.BICUBIC)
    values = (np.asarray(small, dtype=np.float32) / 255 - np.array(_MEAN, np.float32)) / np.array(
        _STD, np.float32
    )
    return torch.from_numpy(values.transpose(2, 0, 1).copy())
