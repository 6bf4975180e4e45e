"""Another number format for the frozen weights of a loaded bridge."""

from lavibridge import lora
from lavibridge.bridge.module import Bridge
from lavibridge.core.device import pick_dtype


def convert_dtype(bridge: Bridge, dtype: str) -> None:
    """Give the frozen weights of both models a number format, as if they had been loaded in it.

    LoRA weights stay float32, and so do buffers; quantised weights stay as they are.
    """
    for model in (bridge.language, bridge.vision):
        trained = {id(weight) for weight in lora.lora_parameters(model.backbone).values()}
        for weight in model.backbone.parameters():
            if weight.is_floating_point() and id(weight) not in trained:
                weight.data = weight.data.to(pick_dtype(dtype))
        model.config = model.config.model_copy(update={"dtype": dtype})
