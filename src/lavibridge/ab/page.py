"""Renders the raters' page as one file with styles, script and all pictures; it makes no network request.

Its content security policy allows no address, and only the one style and the one script with a listed
SHA-256.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from lavibridge.report.page import page_environment


def render_ab_page(study: Mapping[str, Any]) -> str:
    """Render the page of a study from the value that `build_ab_study` makes."""
    templates = files("lavibridge.ab") / "templates"
    base = page_environment()
    style = base.get_template("style.css").render() + (templates / "study.css").read_text(encoding="utf-8")
    script = (templates / "study.js").read_text(encoding="utf-8")
    comparisons = sum(len(part) for part in study["parts"])
    template = base.from_string((templates / "study.html.j2").read_text(encoding="utf-8"))
    return template.render(
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
        comparisons=comparisons,
        questions=list(study["questions"].values()),
        minutes=max(1, round(comparisons * 10 / 60)),
        # Escapes "<", so that no prompt can end the script element.
        study=json.dumps(study).replace("<", "\\u003c"),
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
