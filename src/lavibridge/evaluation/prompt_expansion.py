"""Expands short prompts with a causal language model, for the suite `lavi-long`.

    instruction + prompt -> greedy decoding -> its first paragraph, as one line

Decoding is greedy, so the same model always writes the same prompts. LaVi-Bridge expanded its short prompts
with Llama 2 and does not publish its instruction (Zhao et al. 2024, arXiv 2403.07860); ours is below.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from lavibridge.core.errors import DataError, ModelError
from lavibridge.core.files import file_sha256, read_json, write_atomic, write_json
from lavibridge.core.identity import library_versions
from lavibridge.core.log import progress_bar
from lavibridge.core.paths import require_file_path
from lavibridge.evaluation.benchmark_files import read_benchmark_lines, read_benchmark_text
from lavibridge.evaluation.networks import PretrainedNetwork

EXPANSION_INSTRUCTION = (
    "Rewrite the caption as a detailed description of the same picture, in two or three sentences of one "
    "paragraph. Keep everything that the caption says, and add nothing that contradicts it.\n\n"
    "Caption: {prompt}\nDescription:"
)
_BATCH = 8
OnBatch = Callable[[Sequence[str]], None]


class PromptExpander:
    """A causal language model that writes descriptions."""

    def __init__(self, model: str, tokens: int = 120, instruction: str = EXPANSION_INSTRUCTION) -> None:
        """`tokens` limits the length of a description. Raises ModelError if there is no such model."""
        if "{prompt}" not in instruction:
            raise DataError("the instruction must contain {prompt}, which the short prompt replaces")
        self.network = PretrainedNetwork(model, "AutoModelForCausalLM")
        self.tokens, self.instruction = tokens, instruction

    def card(self) -> dict[str, Any]:
        """The model, the instruction, and the versions of the libraries."""
        by = library_versions("torch", "transformers", "tokenizers")
        return {
            **self.network.card(),
            "tokens": self.tokens,
            "instruction": self.instruction,
            "made_with": by,
        }

    def expand(self, prompts: Sequence[str], on_batch: OnBatch = lambda done: None) -> list[str]:
        """Expand each short prompt, in order; calls `on_batch` after each batch.

        Raises DataError, which names the prompt, if the model writes nothing for it.
        """
        found: list[str] = []
        for start in range(0, len(prompts), _BATCH):
            batch = prompts[start : start + _BATCH]
            written = [_paragraph(text) for text in self._write(batch)]
            for prompt, text in zip(batch, written, strict=True):
                if not text:
                    raise DataError(
                        f"'{self.network.source}' writes nothing for '{prompt[:80]}': choose another model"
                    )
            on_batch(written)
            found += written
        return found

    def _write(self, prompts: Sequence[str]) -> list[str]:
        tokenizer, model = self.network.tokenizer, self.network.model
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        if pad is None:
            raise ModelError(
                f"'{self.network.source}': its tokenizer has neither a padding nor an end token: choose "
                f"another model"
            )
        rows = [self._ids(tokenizer, prompt) for prompt in prompts]
        longest = max(map(len, rows))
        # Padding goes to the left, so that each continuation directly follows its prompt.
        ids = torch.tensor([[pad] * (longest - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        with torch.no_grad():
            written = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=self.tokens,
                do_sample=False,
                pad_token_id=pad,
            )
        return list(tokenizer.batch_decode(written[:, longest:], skip_special_tokens=True))

    def _ids(self, tokenizer: Any, prompt: str) -> list[int]:
        """The instruction in the model's chat template, if it has one."""
        text = self.instruction.replace("{prompt}", prompt)
        if tokenizer.chat_template is None:
            return list(tokenizer(text)["input_ids"])
        messages = [{"role": "user", "content": text}]
        chat = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return list(tokenizer(chat, add_special_tokens=False)["input_ids"])


def expand_prompt_file(short: Path, expander: PromptExpander, out: Path) -> None:
    """Expand a file of short prompts line by line into `out`, resuming an unfinished one.

    `out` + ".json" records the model and the instruction. Raises DataError if there is no short file, or if
    another model, another instruction or other prompts produced `out`.
    """
    if not short.is_file():
        raise DataError(f"there is no file '{short}': give a file with one short prompt per line")
    prompts = read_benchmark_lines(short)
    out = require_file_path(out)
    card_path = out.with_name(f"{out.name}.json")
    card = {**expander.card(), "short": file_sha256(short)}
    written = read_benchmark_text(out) if out.is_file() else ""
    if written and (not card_path.is_file() or read_json(card_path) != card):
        raise DataError(f"{out} comes from another model, instruction or prompt file: give another --out")
    whole = written[: written.rfind("\n") + 1]  # drops an incomplete last line
    write_json(card_path, card)
    write_atomic(out, whole)
    done = whole.count("\n")
    with open(out, "a", encoding="utf-8") as file, progress_bar("prompts") as bar:
        shown = bar.add_task("expanding", total=len(prompts), completed=done, status="")

        def keep(batch: Sequence[str]) -> None:
            file.write("".join(f"{line}\n" for line in batch))
            file.flush()
            bar.update(shown, advance=len(batch))

        expander.expand(prompts[done:], keep)


def _paragraph(text: str) -> str:
    """The first paragraph that is not empty, as one line."""
    paragraphs = (" ".join(part.split()) for part in text.strip().split("\n\n"))
    return next((part for part in paragraphs if part), "")
