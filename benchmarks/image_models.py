"""Prints the table of published image models in docs/results.md, from the vision families and on no device.

python benchmarks/image_models.py
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from published_configs import write_published

from lavibridge.core import registry

HEAD = (
    "| image model | kind | parameters | tokens, pooled vector | guidance | steps | LoRA layers |",
    "| --- | --- | ---: | --- | ---: | --- | ---: |",
)


def rows() -> list[str]:
    """One line for each published model that a vision family names."""
    return [row(kind, name) for kind in registry.kinds("vision") for name in _published(kind)]


def row(kind: str, name: str) -> str:
    """The line of one published model: it is built on the meta device and asked."""
    family: Any = registry.load_kind("vision", kind)
    with TemporaryDirectory() as folder:
        source = write_published(family, name, Path(folder))
        model = family(family.Config(source=str(source)), torch.device("meta"))
    count = sum(weight.numel() for weight in model.backbone.parameters()) / 1e9
    layers = sum(
        isinstance(module, torch.nn.Linear) and name.endswith(model.lora_targets)
        for name, module in model.backbone.named_modules()
    )
    pooled = "" if model.spec.pooled is None else f", {model.spec.pooled}"
    spacing = model.step_spacing or ("even" if model.scheduler.config.use_dynamic_shifting else "shifted")
    return (
        f"| {name} | `{kind}` | {count:.2f} B | {model.spec.context}{pooled} | "
        f"{model.default_guidance_scale:g} | {spacing} | {layers} |"
    )


def _published(kind: str) -> list[str]:
    return list(getattr(registry.load_kind("vision", kind), "published", {}))


if __name__ == "__main__":
    print("\n".join([*HEAD, *rows()]))
