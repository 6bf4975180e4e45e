"""Errors that lavibridge raises on purpose: each states what went wrong, what it found, and what to do."""

from difflib import get_close_matches


class LaviError(Exception):
    """Base of all lavibridge errors; the command line prints ``error: <text>`` and exits with 1."""


class RecipeError(LaviError):
    """A recipe or a setting is wrong: an unknown key, kind or name, or a value outside its range."""


class DataError(LaviError):
    """The data is unusable: a missing file, no samples, or too many unreadable pictures."""


class ModelError(LaviError):
    """A model is unusable: not found, of another family, or of sizes that do not fit the other part."""


class RemoteModelError(LaviError):
    """A model behind an API is unusable: out of reach, without a key, or without a usable answer."""


class PromptRefusedError(RemoteModelError):
    """A remote model refused a prompt, or answered nothing usable to it."""


class RunError(LaviError):
    """A run folder is unusable: it exists already, has no complete checkpoint, or is damaged."""


class CacheError(LaviError):
    """A cache is unusable: a shard is damaged or missing, or its folder is not writable."""


class NotFiniteError(LaviError):
    """A loss or gradient is NaN or infinite; ``names`` are the samples of the skipped step."""

    def __init__(self, message: str, names: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.names = names


def did_you_mean(word: str, known: tuple[str, ...]) -> str:
    """Return ``; did you mean 'steps'?`` if a known word is close, otherwise an empty string."""
    close = get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""
