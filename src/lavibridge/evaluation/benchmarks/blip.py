"""BLIP asked yes or no: how sure it is of yes, of the two, as T2I-CompBench asks it.

    p = P(yes) / (P(yes) + P(no))     at the first token of the answer

    picture    480 x 480, squashed, PIL bicubic; CLIP's mean and standard deviation
    question   small letters, without . ! " ( ) * # : ; ~, at most 35 tokens, the first of which is [ENC]

Li et al. 2022, BLIP, arXiv 2201.12086; Huang et al. 2023, T2I-CompBench, arXiv 2307.06350. transformers' own
processor leaves the first token as it is, so tokens are made here. The published weights read 480 pixels;
those on the hub were brought to 384, and the places of their patches are spread over 480 again.
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

SIZE = 480
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
LONGEST = 35
RESIZE = f"squashed to {SIZE} x {SIZE}, PIL bicubic"


class Blip:
    """A BLIP that answers questions."""

    def __init__(self, source: str) -> None:
        """Find the model; ModelError where it is none that answers."""
        self.network = PretrainedNetwork(source, "BlipForQuestionAnswering")
        if self.network.config.get("model_type") != "blip":
            raise ModelError(
                f"'{source}' is a {self.network.config.get('model_type')}; B-VQA asks a BLIP that answers "
                "questions, such as Salesforce/blip-vqa-capfilt-large"
            )

    @torch.inference_mode()
    def yes_probabilities(self, picture: Image.Image, questions: Sequence[str]) -> list[float]:
        """How sure it is that each question about a picture is answered yes."""
        device = self.network.device
        seen = self.network.model.vision_model(
            preprocess(picture)[None].to(device), interpolate_pos_encoding=True
        ).last_hidden_state
        # One by one: the decoder of transformers 5.23 sees the padding of a shorter question, mask or not.
        return [self._yes(seen, question) for question in questions]

    def _yes(self, seen: Float[Tensor, "1 patch width"], question: str) -> float:
        tokenizer, model = self.network.tokenizer, self.network.model
        ids = tokenizer(
            normalize_question(question), truncation=True, max_length=LONGEST, return_tensors="pt"
        )["input_ids"]
        start = model.config.text_config.bos_token_id  # [DEC]; [ENC] follows it
        ids[:, 0] = start + 1
        asked = model.text_encoder(
            input_ids=ids.to(seen.device),
            attention_mask=torch.ones_like(ids, device=seen.device),
            encoder_hidden_states=seen,
        ).last_hidden_state
        logits = model.text_decoder(
            input_ids=torch.full((1, 1), start, device=seen.device), encoder_hidden_states=asked
        ).logits[0, 0]
        both = tokenizer.convert_tokens_to_ids(["yes", "no"])
        return float(logits[both].float().softmax(-1)[0])


def normalize_question(question: str) -> str:
    """A question as BLIP was taught to read it."""
    kept = re.sub(r"[.!\"()*#:;~]", "", question.lower())
    return re.sub(r"\s+", " ", kept).strip()


def preprocess(picture: Image.Image) -> Float[Tensor, "3 height width"]:
    """A picture as BLIP reads it."""
    small = picture.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    values = (np.asarray(small, dtype=np.float32) / 255 - np.array(MEAN, np.float32)) / np.array(
        STD, np.float32
    )
    return torch.from_numpy(values.transpose(2, 0, 1).copy())
