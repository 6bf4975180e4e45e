"""Answer probabilities of any image-text model of transformers, for questions with one-word answers.

    P(answer) = sum over its spellings of the probability of their first token after the question

Lin et al. 2024, VQAScore, arXiv 2404.01291; Kamath et al. 2025, GenEval 2, arXiv 2512.16853. Models with an
image grid (such as Qwen-VL) have a processor that needs torchvision for videos, so this module assembles
their inputs itself.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lavibridge.core.errors import ModelError
from lavibridge.core.sources import find_model_file, read_model_json
from lavibridge.evaluation.benchmarks.soft_tifa import tifa_spellings
from lavibridge.evaluation.networks import PretrainedNetwork

_BATCH = 8
"""Questions per batch."""
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class ImageTextModel:
    """An image-text model that generates answers."""

    def __init__(self, source: str, dtype: Literal["float32", "bfloat16"]) -> None:
        """Find the model. Raises ModelError if it is not a decoder-only image-text model."""
        self.network = PretrainedNetwork(source, "AutoModelForImageTextToText", dtype=_DTYPES[dtype])
        if self.network.config.get("is_encoder_decoder"):
            raise ModelError(
                f"'{source}' is an encoder-decoder: give a decoder-only model, "
                "such as Qwen/Qwen3-VL-8B-Instruct"
            )
        self._template = image_text_chat_template(source)

    def answer_probabilities(
        self, picture: Image.Image, questions: Sequence[str], answers: Sequence[Sequence[str]]
    ) -> list[float]:
        """For each question, the probability that the answer is one of its spellings."""
        rows = zip(self._next_word(picture, questions), answers, strict=True)
        return [float(chance[self._first(spelled)].sum()) for chance, spelled in rows]

    def yes_probabilities(self, picture: Image.Image, questions: Sequence[str]) -> list[float]:
        """For each question, the probability of yes against no."""
        yes, no = self._first(tifa_spellings("yes")), self._first(tifa_spellings("no"))
        both = [(float(row[yes].sum()), float(row[no].sum())) for row in self._next_word(picture, questions)]
        return [a / (a + b) if a + b > 0 else 0.5 for a, b in both]

    @torch.inference_mode()
    def _next_word(self, picture: Image.Image, questions: Sequence[str]) -> Iterator[Float[Tensor, " token"]]:
        """The probabilities of the token after each question."""
        for start in range(0, len(questions), _BATCH):
            texts = [self._plain(question) for question in questions[start : start + _BATCH]]
            inputs = self._with_grid(picture, texts) if self._has_grid else self._joint(picture, texts)
            inputs = {name: value.to(self.network.device) for name, value in inputs.items()}
            inputs["pixel_values"] = inputs["pixel_values"].to(self.network.dtype)
            # Padding is on the right, so no question attends to it; the answer follows the last real token.
            last = inputs["attention_mask"].sum(-1) - 1
            positions = last.unique()
            logits = self.network.model(**inputs, logits_to_keep=positions).logits
            # Some models ignore `logits_to_keep` and return all positions.
            place = torch.searchsorted(positions, last) if logits.shape[1] == len(positions) else last
            rows = torch.arange(len(texts), device=place.device)
            yield from logits[rows, place].float().softmax(-1).cpu()

    def _plain(self, question: str) -> str:
        """The question without image tokens, since the input has exactly one picture."""
        config = self.network.config
        number = config.get("image_token_id", config.get("image_token_index"))
        token = self.network.tokenizer.convert_ids_to_tokens(number) if number is not None else None
        return question.replace(token, " ") if token else question

    @property
    def _has_grid(self) -> bool:
        return str(self.network.config.get("model_type", "")).startswith("qwen")

    @cached_property
    def _processor(self) -> Any:
        return self.network.part("AutoProcessor", backend="pil")

    def _first(self, spellings: Sequence[str]) -> list[int]:
        """The unique first tokens of spellings, without a lone blank, which could start any answer."""
        tokenizer = self.network.tokenizer
        first = [tokenizer(spelling, add_special_tokens=False)["input_ids"][0] for spelling in spellings]
        return [token for token in dict.fromkeys(first) if tokenizer.decode([token]).strip()]

    def _joint(self, picture: Image.Image, questions: Sequence[str]) -> dict[str, Any]:
        """The inputs from the model's own processor."""
        messages = [_message(question, image=picture) for question in questions]
        inputs = self._processor.apply_chat_template(
            messages,
            chat_template=self._template,
            tokenize=True,
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True, "padding_side": "right"},
        )
        return dict(inputs)

    def _with_grid(self, picture: Image.Image, questions: Sequence[str]) -> dict[str, Any]:
        """The inputs of a model with an image grid: one image token per merged patch."""
        tokenizer, processor = self.network.tokenizer, self.network.processor
        token = tokenizer.convert_ids_to_tokens(self.network.config["image_token_id"])
        pixels = processor(images=[picture] * len(questions), return_tensors="pt")
        count = int(pixels["image_grid_thw"][0].prod()) // processor.merge_size**2
        rows = []
        for question in questions:
            text = tokenizer.apply_chat_template(
                _message(question, image=None),
                chat_template=self._template,
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=False,  # models that reason first would not begin with the answer
            )
            before, _, after = text.partition(token)
            ids = tokenizer(before + token * count + after, add_special_tokens=False)["input_ids"]
            rows.append(torch.tensor(ids))
        mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        ids = pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id or 0)
        is_picture = (ids == self.network.config["image_token_id"]).long()
        return {"input_ids": ids, "attention_mask": mask, "mm_token_type_ids": is_picture, **pixels}


def image_text_chat_template(source: str) -> str:
    """The model's chat template. Raises ModelError if it has none."""
    path = find_model_file(source, "chat_template.jinja")
    if path is not None:
        return path.read_text(encoding="utf-8")
    for name in ("chat_template.json", "processor_config.json", "tokenizer_config.json"):
        found = (read_model_json(source, name) or {}).get("chat_template")
        if isinstance(found, str):
            return found
    raise ModelError(f"'{source}' has no chat template: give an instruction-tuned image-text model")


def _message(question: str, image: Image.Image | None) -> list[dict[str, Any]]:
    picture = {"type": "image"} if image is None else {"type": "image", "image": image}
    return [{"role": "user", "content": [picture, {"type": "text", "text": question}]}]
