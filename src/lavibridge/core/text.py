"""Text that every file, tokenizer and terminal takes."""


def is_unicode(text: str) -> bool:
    """Whether a text can be written in UTF-8; bytes that were no UTF-8 come in as lone surrogates."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
