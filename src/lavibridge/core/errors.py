"""The errors that lavibridge raises on purpose: each says what, what was found, and what to do."""


class LaviError(Exception):
    """The base of all of them; the command line prints ``error: <text>`` and exits with 1."""


class RecipeError(LaviError):
    """A recipe or a setting is wrong: an unknown key, kind or name, or a value out of its range."""


class DataError(LaviError):
    """The user's data cannot be used: a missing file, no samples, too many unreadable pictures."""


class ModelError(LaviError):
    """A model cannot be used: not found, of another family, or its sizes do not fit the other part."""


class RunError(LaviError):
    """A run folder cannot be used: it exists already, holds no complete checkpoint, or is damaged."""


class CacheError(LaviError):
    """A cache cannot be used: a shard is damaged or gone, or its folder cannot be written to."""


class NotFiniteError(LaviError):
    """A loss or gradient is NaN or infinite; ``names`` are the samples of the step that was not taken."""

    def __init__(self, message: str, names: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.names = names
