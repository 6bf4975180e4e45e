"""The index of a data set stores the results of `lavi data check`, so that no picture is checked twice.

    INDEX/index.json            the manifest: settings, the lists' hashes or times, counts; written last
    INDEX/pictures-HASH.arrow   the usable pictures, with the size, time and hash of their files
    INDEX/rejected.jsonl        the rejected ones: file, line of the list, reason
    INDEX/journal-*.checks      results of an unfinished check

INDEX is `data.index`, or a folder of the user's cache ($LAVIBRIDGE_CACHE, $XDG_CACHE_HOME/lavibridge,
~/.cache/lavibridge), because data often lies on a read-only disk. Every index belongs to one `data.path` and
the settings that say how to read it. The manifest has the SHA-256 of the other files, since Arrow crashes on
damaged ones: an index that does not match it is made anew.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lavibridge.core.errors import LaviError
from lavibridge.core.files import file_sha256, parse_json, read_json_object, split_json_lines, write_json
from lavibridge.core.identity import cached_file_hash
from lavibridge.core.paths import cache_folder, path_below
from lavibridge.data.pictures.decoding import DECODING_VERSION as PIXELS
from lavibridge.data.pictures.image_table import ImageTable, open_image_journal, open_image_table
from lavibridge.data.pictures.rejected import Rejection

_VERSION = f"4, pixels {PIXELS}"
"""Version of the checks and of the files; an index of another version is rebuilt."""
_MANIFEST = "index.json"


class ImageIndex:
    """One folder of an index; `settings` identify its data."""

    def __init__(self, settings: Mapping[str, Any], folder: Path | None) -> None:
        text = json.dumps(settings, sort_keys=True)
        self.settings = json.loads(text)
        name = Path(str(settings.get("path", "data"))).name
        key = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.folder = folder or cache_folder() / "data" / f"{name}-{key}"
        self.rejected = self.folder / "rejected.jsonl"

    def manifest(self) -> dict[str, Any] | None:
        """Return the manifest of a finished check of these settings by this version, or None."""
        try:
            found = read_json_object(self.folder / _MANIFEST)
            if found["version"] != _VERSION or found["settings"] != self.settings:
                return None
            table = path_below(self.folder, found["table"])
            hashes = [cached_file_hash(file) for file in (table, self.rejected)]
        except (OSError, LaviError, KeyError, TypeError):
            return None  # missing or damaged: the check rebuilds it
        return found if hashes == [found["sha256"], found["rejected_sha256"]] else None

    def table(self, manifest: Mapping[str, Any]) -> ImageTable:
        """Return the usable pictures."""
        return open_image_table(self.folder / manifest["table"])

    def rejections(self) -> list[Rejection]:
        """Return the rejected pictures and the warnings."""
        text = self.rejected.read_text(encoding="utf-8")
        return [parse_json(line, str(self.rejected)) for line in split_json_lines(text)]

    def known(self) -> list[ImageTable]:
        """Return earlier checks, newest last: a finished index, even with outdated lists, and journals."""
        tables = []
        manifest = self.manifest()
        if manifest is not None:
            with suppress(OSError, ValueError):
                tables.append(self.table(manifest))
        return tables + [open_image_journal(path) for path in self.journals()]

    def journals(self) -> list[Path]:
        """Return the journals of interrupted checks."""
        return sorted(self.folder.glob("journal-*.checks"))

    def finish(self, table: Path, stamps: Mapping[str, Any], count: int, fingerprint: str) -> None:
        """Publish a complete table on disk as the index, and delete its predecessors."""
        write_json(
            self.folder / _MANIFEST,
            {
                "version": _VERSION,
                "settings": self.settings,
                "stamps": stamps,
                "pictures": count,
                "table": table.name,
                "sha256": file_sha256(table),
                "rejected_sha256": file_sha256(self.rejected),
                "fingerprint": fingerprint,
            },
        )
        for old in (*self.journals(), *self.folder.glob("pictures-*.arrow")):
            if old != table:
                old.unlink(missing_ok=True)

    def forget_freshness(self) -> None:
        """Make the next opening compare everything again; checks of unchanged files stay valid."""
        manifest = self.manifest()
        if manifest is not None:
            write_json(self.folder / _MANIFEST, {**manifest, "stamps": {}})
