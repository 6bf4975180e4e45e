"""Any model of transformers that reads a picture and words, asked for one word: how likely each answer is.

    P(answer) = sum over its spellings of the probability of their first token, right after the question

Lin et al. 2024, VQAScore, arXiv 2404.01291; Kamath et al. 2025, GenEval 2, arXiv 2512.16853. Models with a
picture grid (Qwen-VL and its kind) have a processor that cannot be had without torchvision, for its videos;
their pictures and words are put together here.
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
from lavibridge.evaluation.benchmarks.soft_tifa import spellings
from lavibridge.evaluation.networks import PretrainedNetwork

BATCH = 8
"""Questions asked at a time."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class ImageTextModel:
    """An image-text model that answers in words."""

    def __init__(self, source: str, dtype: Literal["float32", "bfloat16"]) -> None:
        """Find the model; ModelError where it is none, or reads and writes apart."""
        self.network = PretrainedNetwork(source, "AutoModelForImageTextToText", dtype=DTYPES[dtype])
        if self.network.config.get("is_encoder_decoder"):
            raise ModelError(
                f"'{source}' writes its answer apart from the question; give a model that goes on with it, "
                "such as Qwen/Qwen3-VL-8B-Instruct"
            )
        self._template = find_template(source)

    def answer_probabilities(
        self, picture: Image.Image, questions: Sequence[str], answers: Sequence[Sequence[str]]
    ) -> list[float]:
        """For each question about a picture, how likely one of the spellings given for it is the answer."""
        rows = zip(self._next_word(picture, questions), answers, strict=True)
        return [float(chance[self._first(spelled)].sum()) for chance, spelled in rows]

    def yes_probabilities(self, picture: Image.Image, questions: Sequence[str]) -> list[float]:
        """For each question about a picture, how likely the answer is yes, of yes and no."""
        yes, no = self._first(spellings("yes")), self._first(spellings("no"))
        both = [(float(row[yes].sum()), float(row[no].sum())) for row in self._next_word(picture, questions)]
        return [a / (a + b) if a + b > 0 else 0.5 for a, b in both]

    @torch.inference_mode()
    def _next_word(self, picture: Image.Image, questions: Sequence[str]) -> Iterator[Float[Tensor, " token"]]:
        """The probabilities of the token after each question."""
        for start in range(0, len(questions), BATCH):
            asked = [self._plain(question) for question in questions[start : start + BATCH]]
            inputs = self._with_grid(picture, asked) if self._has_grid else self._joint(picture, asked)
            inputs = {name: value.to(self.network.device) for name, value in inputs.items()}
            inputs["pixel_values"] = inputs["pixel_values"].to(self.network.dtype)
            # Padding stands behind, so that no question sees it: its answer follows its last own token.
            last = inputs["attention_mask"].sum(-1) - 1
            kept = last.unique()
            logits = self.network.model(**inputs, logits_to_keep=kept).logits
            # Some models give all positions all the same.
            place = torch.searchsorted(kept, last) if logits.shape[1] == len(kept) else last
            rows = torch.arange(len(asked), device=place.device)
            yield from logits[rows, place].float().softmax(-1).cpu()

    def _plain(self, question: str) -> str:
        """The question without words that stand for a picture, of which there is one."""
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
        """The first tokens of spellings, each once; a lone blank begins any answer, and counts for none."""
        tokenizer = self.network.tokenizer
        first = [tokenizer(spelling, add_special_tokens=False)["input_ids"][0] for spelling in spellings]
        return [token for token in dict.fromkeys(first) if tokenizer.decode([token]).strip()]

    def _joint(self, picture: Image.Image, questions: Sequence[str]) -> dict[str, Any]:
        """Inputs as the model's own processor makes them."""
        messages = [_message(question, image=picture) for question in questions]
        made = self._processor.apply_chat_template(
            messages,
            chat_template=self._template,
            tokenize=True,
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True, "padding_side": "right"},
        )
        return dict(made)

    def _with_grid(self, picture: Image.Image, questions: Sequence[str]) -> dict[str, Any]:
        """Inputs of a model with a picture grid: as many picture tokens as it has patches after merging."""
        tokenizer, processor = self.network.tokenizer, self.network.processor
        token = tokenizer.convert_ids_to_tokens(self.network.config["image_token_id"])
        seen = processor(images=[picture] * len(questions), return_tensors="pt")
        count = int(seen["image_grid_thw"][0].prod()) // processor.merge_size**2
        rows = []
        for question in questions:
            text = tokenizer.apply_chat_template(
                _message(question, image=None),
                chat_template=self._template,
                tokenize=False,
                add_generation_prompt=True,
            )
            before, _, after = text.partition(token)
            ids = tokenizer(before + token * count + after, add_special_tokens=False)["input_ids"]
            rows.append(torch.tensor(ids))
        mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        ids = pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id or 0)
        is_picture = (ids == self.network.config["image_token_id"]).long()
        return {"input_ids": ids, "attention_mask": mask, "mm_token_type_ids": is_picture, **seen}


def find_template(source: str) -> str:
    """How a model wants to be spoken to; ModelError where none of its files says so."""
    path = find_model_file(source, "chat_template.jinja")
    if path is not None:
        return path.read_text(encoding="utf-8")
    for name in ("chat_template.json", "processor_config.json", "tokenizer_config.json"):
        found = (read_model_json(source, name) or {}).get("chat_template")
        if isinstance(found, str):
            return found
    raise ModelError(
        f"'{source}' has no chat template: it is no image-text model that can be asked questions"
    )


def _message(question: str, image: Image.Image | None) -> list[dict[str, Any]]:
    picture = {"type": "image"} if image is None else {"type": "image", "image": image}
    return [{"role": "user", "content": [picture, {"type": "text", "text": question}]}]
