"""Checks before the first prompt that a tokenizer belongs to its model.

ids of tokens   0 ... rows of the model's table - 1, most of them used
beyond it       special tokens that text models inherit (Gemma 3's <image_soft_token>): read as plain text
frame           begin and end tokens, if a family was always trained with them
"""

from collections.abc import Sequence
from typing import Any

from lavibridge.core.errors import ModelError
from lavibridge.core.log import console

LEAST_USED = 0.75
"""Least share of the table that a tokenizer uses; published tables are padded by a few per cent."""


def check_vocabulary(tokenizer: Any, rows: int, source: str) -> None:
    """Raise ModelError if the tokenizer's ids do not fit an embedding table of ``rows`` rows."""
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    special = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
    beyond = sorted((id, word) for word, id in vocabulary.items() if id >= rows)
    unknown = [(id, word) for id, word in beyond if id not in special]
    if unknown:
        id, word = unknown[0]
        raise ModelError(
            f"the tokenizer of '{source}' has {len(unknown)} words beyond the {rows} rows of the model's "
            f"table, such as '{word}' ({id}): take the model's own tokenizer, "
            "without tokens that were added"
        )
    if len(vocabulary) < LEAST_USED * rows:
        raise ModelError(
            f"the tokenizer of '{source}' has {len(vocabulary)} words, the model's table {rows} rows: it is "
            "another model's; take the model's own tokenizer"
        )
    framing = sorted({id for id in tokenizer("")["input_ids"] if id >= rows})
    if framing:
        raise ModelError(
            f"the tokenizer of '{source}' puts '{tokenizer.convert_ids_to_tokens(framing[0])}' around "
            f"prompts, whose id {framing[0]} is beyond the {rows} rows of the model's table: "
            "take the model's own tokenizer"
        )
    if beyond:
        console.print(
            f"note: '{source}' has no vectors for {len(beyond)} special tokens of its tokenizer, such as "
            f"'{beyond[0][1]}': they are read as plain text",
        )


def check_vocabulary_frame(begin: Sequence[int], end: Sequence[int], template: str, source: str) -> None:
    """Raise ModelError if prompts do not begin and end as in ``template``, such as `<s> $A </s>`."""
    before, _, after = template.partition("$A")
    wanted, found = (bool(before), bool(after)), (len(begin), len(end))
    if found != wanted:
        raise ModelError(
            f"the tokenizer of '{source}' puts {found[0]} special tokens before a prompt and {found[1]} "
            f"after it, the model was trained with {wanted[0]:d} and {wanted[1]:d}: "
            "take the model's own tokenizer"
        )


def vocabulary_pad_id(tokenizer: Any, names: Sequence[str], rows: int, is_seen: bool, source: str) -> int:
    """Return the id of the first of ``names`` that the tokenizer has. Raises ModelError if it has none.

    Skips an id without a row in the table, unless the model sees padding (``is_seen``).
    """
    found = [getattr(tokenizer, f"{name}_token_id") for name in names]
    known = [int(one) for one in found if one is not None]
    usable = [one for one in known if one < rows]
    if not known:
        raise ModelError(
            f"the tokenizer of '{source}' has no {' or '.join(names)} token to pad with: "
            "name one in its tokenizer_config.json (pad_token)"
        )
    if not usable or (is_seen and usable[0] != known[0]):
        raise ModelError(
            f"the tokenizer of '{source}' pads with id {known[0]}, beyond the {rows} rows of the model's "
            "table: name another in its tokenizer_config.json (pad_token)"
        )
    return usable[0]
