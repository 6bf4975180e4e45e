"""The studies that the package ships, by name; listing them imports nothing."""

from pathlib import Path


def shipped_studies() -> dict[str, Path]:
    """Name and file of each, sorted by name."""
    return {path.stem: path for path in sorted((Path(__file__).parent / "studies").glob("*.yaml"))}
