"""The nodes, in ComfyUI's V1 declaration.

    Load language model --> Load bridge --+--> Encode prompt --> CONDITIONING --> KSampler
                                          +--> Apply bridge  --> MODEL ---------> KSampler

ComfyUI's modules are imported where a node runs, so that the nodes can be tested without it.
"""

from pathlib import Path
from typing import Any

from .apply import apply_bridge
from .conditioning import encode_prompt
from .conditioning_files import read_conditioning, write_conditioning
from .places import conditioning_output, find_bridge, find_conditioning, find_language_model

CATEGORY = "lavibridge"
_AS_SAVED = "as saved"


class LoadLanguageModel:
    """Chooses another copy of the bridge's language model, or its number format and device."""

    CATEGORY = CATEGORY
    FUNCTION = "choose"
    RETURN_TYPES = ("LAVI_LANGUAGE_MODEL",)
    RETURN_NAMES = ("language_model",)
    DESCRIPTION = (
        "A folder of Transformers, a hub id or a GGUF file of the language model that the bridge was trained "
        "with. 'Load bridge' loads it, because the bridge says how to read it."
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Return the inputs."""
        return {
            "required": {
                "source": ("STRING", {"default": "", "tooltip": "Empty: the source that the bridge names."}),
                "dtype": ([_AS_SAVED, "float32", "bfloat16", "float16"],),
                "device": (["auto", "cpu"],),
            }
        }

    def choose(self, source: str, dtype: str, device: str) -> tuple[dict[str, Any]]:
        """Return the options that differ from the bridge's. Raises ModelError if there is no such model."""
        options = {"source": find_language_model(source.strip())} if source.strip() else {}
        if dtype != _AS_SAVED:
            options["dtype"] = dtype
        return ({"options": options, "device": device},)


class LoadBridge:
    """Loads the language model and the connector of a bridge."""

    CATEGORY = CATEGORY
    FUNCTION = "load"
    RETURN_TYPES = ("LAVI_BRIDGE",)
    RETURN_NAMES = ("bridge",)
    DESCRIPTION = "A file that `lavi export --format bridge` wrote, or a run folder or saved bridge."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Return the inputs."""
        return {
            "required": {
                "bridge": (
                    "STRING",
                    {"default": "", "tooltip": "A path, a name in ComfyUI's models/bridges, or a hub id."},
                )
            },
            "optional": {"language_model": ("LAVI_LANGUAGE_MODEL",)},
        }

    @classmethod
    def IS_CHANGED(cls, bridge: str, language_model: dict[str, Any] | None = None) -> float:
        """Return the file's time, so that ComfyUI loads it again after an export."""
        place = Path(find_bridge(bridge.strip()))
        return place.stat().st_mtime if place.exists() else 0.0

    def load(self, bridge: str, language_model: dict[str, Any] | None = None) -> tuple[Any]:
        """Return the encoder. Raises RunError or ModelError if the bridge or its language model fails."""
        from lavibridge.generation.prompt_encoder import PromptEncoder

        chosen = language_model or {"options": {}, "device": "auto"}
        place = find_bridge(bridge.strip())
        return (PromptEncoder.from_pretrained(place, chosen["options"], device=chosen["device"]),)


class EncodePrompt:
    """Encodes a prompt, or a negative prompt, with a bridge."""

    CATEGORY = CATEGORY
    FUNCTION = "encode"
    RETURN_TYPES = ("CONDITIONING",)
    DESCRIPTION = "(word:1.2) gives a word more weight, and \\( is a bracket."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Return the inputs."""
        return {
            "required": {
                "bridge": ("LAVI_BRIDGE",),
                "text": ("STRING", {"multiline": True, "dynamicPrompts": True}),
                "negative": (
                    "BOOLEAN",
                    {"default": False, "tooltip": "Whether this is the negative prompt; it may be empty."},
                ),
            }
        }

    def encode(self, bridge: Any, text: str, negative: bool) -> tuple[list[list[Any]]]:
        """Return the conditioning. Raises RecipeError for word weights that the bridge cannot use."""
        return (encode_prompt(bridge, text, negative),)


class ApplyBridge:
    """Prepares a model for the prompts of a bridge."""

    CATEGORY = CATEGORY
    FUNCTION = "apply"
    RETURN_TYPES = ("MODEL",)
    DESCRIPTION = (
        "Adds the bridge's LoRA to the model. A connector that depends on the timestep, or on the denoiser's "
        "blocks, runs at each step from here on."
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Return the inputs."""
        strength = {"default": 1.0, "min": -10.0, "max": 10.0, "step": 0.01}
        return {
            "required": {
                "model": ("MODEL",),
                "bridge": ("LAVI_BRIDGE",),
                "lora_strength": ("FLOAT", strength),
            }
        }

    def apply(self, model: Any, bridge: Any, lora_strength: float) -> tuple[Any]:
        """Return a clone of the model. Raises ModelError if the bridge does not work with it."""
        return (apply_bridge(model, bridge, lora_strength),)


class SaveConditioning:
    """Writes a conditioning as a safetensors file."""

    CATEGORY = CATEGORY
    FUNCTION = "save"
    RETURN_TYPES = ()
    OUTPUT_NODE = True
    DESCRIPTION = (
        "Writes into ComfyUI's output folder. The language model need not be loaded to draw with it."
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Return the inputs."""
        return {
            "required": {
                "conditioning": ("CONDITIONING",),
                "filename_prefix": ("STRING", {"default": "conditioning/lavi"}),
            }
        }

    def save(self, conditioning: list[list[Any]], filename_prefix: str) -> dict[str, Any]:
        """Write the file and show its name. Raises DataError for entries that no file can hold."""
        file = conditioning_output(filename_prefix)
        write_conditioning(conditioning, file)
        return {"ui": {"text": [str(file)]}}


class LoadConditioning:
    """Reads a conditioning that *Save conditioning* wrote."""

    CATEGORY = CATEGORY
    FUNCTION = "load"
    RETURN_TYPES = ("CONDITIONING",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Return the inputs."""
        about = {"default": "", "tooltip": "A path, or a name in ComfyUI's input or output folder."}
        return {"required": {"file": ("STRING", about)}}

    @classmethod
    def IS_CHANGED(cls, file: str) -> float:
        """Return the file's time, so that ComfyUI reads it again after a change."""
        return find_conditioning(file.strip()).stat().st_mtime

    def load(self, file: str) -> tuple[list[list[Any]]]:
        """Return the conditioning. Raises DataError or ModelError if the file is none."""
        return (read_conditioning(find_conditioning(file.strip())),)


NODE_CLASS_MAPPINGS = {
    "LaviLoadLanguageModel": LoadLanguageModel,
    "LaviLoadBridge": LoadBridge,
    "LaviEncodePrompt": EncodePrompt,
    "LaviApplyBridge": ApplyBridge,
    "LaviSaveConditioning": SaveConditioning,
    "LaviLoadConditioning": LoadConditioning,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "LaviLoadLanguageModel": "Load language model (lavibridge)",
    "LaviLoadBridge": "Load bridge (lavibridge)",
    "LaviEncodePrompt": "Encode prompt (lavibridge)",
    "LaviApplyBridge": "Apply bridge (lavibridge)",
    "LaviSaveConditioning": "Save conditioning (lavibridge)",
    "LaviLoadConditioning": "Load conditioning (lavibridge)",
}
