"""The raters' page as one text: template, styles, script and all pictures; it asks the network for nothing.

Its policy allows no address at all, and no style or script but the two whose SHA-256 it names.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from lavibridge.report.page import environment


def render(study: Mapping[str, Any]) -> str:
    """The page of a study, as `build` describes it."""
    templates = files("lavibridge.ab") / "templates"
    base = environment()
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
        # No "<" in it: a prompt cannot end the script element that it is in.
        study=json.dumps(study).replace("<", "\\u003c"),
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
