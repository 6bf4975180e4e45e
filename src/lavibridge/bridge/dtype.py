"""Converts the frozen weights of a loaded bridge to another number format."""

from lavibridge import lora
from lavibridge.bridge.module import Bridge
from lavibridge.core.device import pick_dtype


def convert_dtype(bridge: Bridge, dtype: str) -> None:
    """Convert the frozen weights of both models to ``dtype``, as if they had been loaded in it.

    LoRA weights and buffers stay float32. Quantised weights stay as they are, but their
    layers compute in ``dtype``.
    """
    for model in (bridge.language, bridge.vision):
        trained = {id(weight) for weight in lora.lora_parameters(model.backbone).values()}
        for weight in model.backbone.parameters():
            if weight.is_floating_point() and id(weight) not in trained:
                weight.data = weight.data.to(pick_dtype(dtype))
        for module in model.backbone.modules():
            if hasattr(module, "compute_dtype"):  # a quantised layer
                setattr(module, "compute_dtype", pick_dtype(dtype))  # noqa: B010 - no field of every module
        model.config = model.config.model_copy(update={"dtype": dtype})
