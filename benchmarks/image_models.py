"""Prints the tables of image models and families in docs/results.md, from the families and on no device.

python benchmarks/image_models.py
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from published_configs import write_published

from lavibridge.core import registry
from lavibridge.vision.parts.scheduler_settings import scheduler_step_spacing

HEAD = (
    "| image model | kind | parameters | tokens, pooled vector | guidance | steps | LoRA layers |",
    "| --- | --- | ---: | --- | ---: | --- | ---: |",
)


FAMILIES = (
    "| kind | denoiser | autoencoder | own text side | cross-attention |",
    "| --- | --- | --- | --- | --- |",
)


def family_row(kind: str) -> str:
    """The line of one vision family, from its toy."""
    family: Any = registry.load_kind("vision", kind)
    model = family(family.Config(source="random"))
    text = model.text
    read = "not described" if text is None else ", ".join(encoder.folder for encoder in text.encoders)
    layers = "per block" if model.spec.blocks else "no"
    return f"| `{kind}` | {family.denoiser_class} | {family.autoencoder_class} | {read} | {layers} |"


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
    spacing = model.step_spacing or (
        scheduler_step_spacing(model.scheduler) if model.prediction_type == "flow" else "diffusion"
    )
    return (
        f"| {name} | `{kind}` | {count:.2f} B | {model.spec.context}{pooled} | "
        f"{model.default_guidance_scale:g} | {spacing} | {layers} |"
    )


def _published(kind: str) -> list[str]:
    return list(getattr(registry.load_kind("vision", kind), "published", {}))


if __name__ == "__main__":
    print("\n".join([*HEAD, *rows()]))
    print("\n".join([*FAMILIES, *(family_row(kind) for kind in registry.kinds("vision"))]))
