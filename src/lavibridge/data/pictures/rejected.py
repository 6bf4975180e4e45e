"""Collects the rejected pictures: counted, and listed with a reason in `rejected.jsonl`. The files stay
untouched.

Training accepts a share of up to `limit` rejected pictures; above that it stops before any weights change. A
few broken files are normal in a large set; many of them mean a wrong folder or a failed download.

A line with `"counted": false` is a warning, not a rejected picture: a caption without a picture, another kind
of file, or a picture that is used despite a fault such as a broken colour profile.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from lavibridge.core.errors import DataError
from lavibridge.core.files import write_atomic

Rejection = dict[str, str | int]


class RejectedPictures:
    """Collects rejections and writes them to `path`, one JSON object per line, if there is a path."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.index_list: Path | None = None
        """The list beside the data's index, named in messages if `path` is None."""
        self.entries: list[Rejection] = []
        self.warnings: list[Rejection] = []
        """Files that are listed but not counted: of another kind, or used despite a fault."""

    def add(self, file: str, reason: str, line: int | None = None) -> None:
        """Add a rejected picture (and the line of the list that names it)."""
        entry: Rejection = {"file": file, "reason": reason}
        if line is not None:
            entry["line"] = line
        self.entries.append(entry)

    def warn(self, file: str, reason: str) -> None:
        """Add a warning about a file that is not a rejected picture."""
        self.warnings.append({"file": file, "reason": reason, "counted": False})

    @property
    def all(self) -> list[Rejection]:
        """All list entries: the rejected pictures, then the warnings."""
        return [*self.entries, *self.warnings]

    def take(self, listed: Sequence[Rejection]) -> None:
        """Replace the entries by those of a written list."""
        self.entries[:] = [each for each in listed if each.get("counted", True)]
        self.warnings[:] = [each for each in listed if not each.get("counted", True)]

    def close(self, total: int, limit: float, where: str) -> None:
        """Write the list, then raise DataError if more than `limit` of `total` pictures were rejected."""
        if self.path is not None:
            write_rejections(self.path, self.all)
        if len(self.entries) > limit * total or len(self.entries) == total:
            raise DataError(self.summary(total, limit, where))

    def summary(self, total: int, limit: float, where: str) -> str:
        """Return the error text, with the first three examples and the path of the full list."""
        examples = "".join(f"\n  {_describe(entry)}" for entry in self.entries[:3])
        path = self.path or self.index_list
        listed = f"\nThe full list is {path}." if path is not None else ""
        rule = (
            f"at most {limit:.1%} may be unusable (data.max_rejected)"
            if len(self.entries) < total
            else "none is left"
        )
        return (
            f"{where}: {len(self.entries):,} of {total:,} pictures are unusable; {rule}. The first of them:"
            f"{examples}{listed}\nRepair or remove them from the data, or raise data.max_rejected."
        )


def write_rejections(path: Path, entries: Sequence[Rejection]) -> None:
    """Write a list, one JSON object per line."""
    write_atomic(path, "".join(_line(entry) + "\n" for entry in entries))


def _line(entry: Rejection) -> str:
    """Return one rejection as JSON, escaped if a name holds a lone surrogate, which UTF-8 cannot encode."""
    try:
        line = json.dumps(entry, ensure_ascii=False)
        line.encode()
    except UnicodeEncodeError:
        return json.dumps(entry)
    return line


def _describe(entry: Rejection) -> str:
    """Return one rejection as a line of a few hundred characters at most."""
    line = f", line {entry['line']}" if "line" in entry else ""
    return f"{str(entry['file'])[:120]}{line}: {str(entry['reason'])[:200]}"
