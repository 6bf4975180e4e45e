"""Checks that text suits every file, tokenizer and terminal."""


def is_valid_unicode(text: str) -> bool:
    """Whether UTF-8 can encode a text; bytes that were not UTF-8 appear as lone surrogates."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
