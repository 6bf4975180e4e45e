"""The nodes keep ComfyUI's V1 contract, as its public source states it, and so do the stand-ins.

nodes.py, load_custom_node              NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
execution.py, get_input_data and _map_node_over_list    INPUT_TYPES()["required" | "optional"], FUNCTION
execution.py, get_output_data           RETURN_TYPES: a tuple; an output node may return {"ui": {...}}
execution.py, IsChangedCache            IS_CHANGED, with the node's own inputs
comfy/comfy_types/node_typing.py        the names of the types and of an input's options
"""

import importlib.util
import inspect
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import comfyui_contract
import pytest

COMFYUI_TYPES = {
    "STRING",
    "BOOLEAN",
    "FLOAT",
    "INT",
    "MODEL",
    "CONDITIONING",
    "CLIP",
    "VAE",
    "LATENT",
    "IMAGE",
}
OWN_TYPES = {"LAVI_LANGUAGE_MODEL", "LAVI_BRIDGE"}
OPTIONS = {"default", "min", "max", "step", "multiline", "dynamicPrompts", "tooltip"}
WORKFLOW = Path(__file__).parents[1] / "workflow.json"
CORE_NODES: dict[str, tuple[dict[str, str], tuple[str, ...], int]] = {
    "CheckpointLoaderSimple": ({}, ("MODEL", "CLIP", "VAE"), 1),
    "EmptyLatentImage": ({}, ("LATENT",), 3),
    "KSampler": (
        {"model": "MODEL", "positive": "CONDITIONING", "negative": "CONDITIONING", "latent_image": "LATENT"},
        ("LATENT",),
        7,
    ),
    "VAEDecode": ({"samples": "LATENT", "vae": "VAE"}, ("IMAGE",), 0),
    "SaveImage": ({"images": "IMAGE"}, (), 1),
}
"""ComfyUI's own nodes: inputs, outputs, and number of widgets (nodes.py; a seed has two)."""


def inputs_of(node: Any) -> dict[str, tuple[Any, ...]]:
    declared = node.INPUT_TYPES()
    assert declared.keys() <= {"required", "optional"}
    return {name: entry for group in declared.values() for name, entry in group.items()}


def test_the_package_declares_every_node_with_a_name_of_its_own(package: ModuleType) -> None:
    nodes, names = package.NODE_CLASS_MAPPINGS, package.NODE_DISPLAY_NAME_MAPPINGS
    assert nodes.keys() == names.keys()
    assert len(set(names.values())) == len(names) == 6
    assert all(name.startswith("Lavi") for name in nodes)


def test_each_node_is_declared_as_v1_asks(package: ModuleType) -> None:
    for node in package.NODE_CLASS_MAPPINGS.values():
        inputs = inputs_of(node)
        for entry in inputs.values():
            kind, options = entry[0], entry[1] if len(entry) > 1 else {}
            if isinstance(kind, list):
                assert all(isinstance(choice, str) for choice in kind)
            else:
                assert kind in COMFYUI_TYPES | OWN_TYPES
            assert options.keys() <= OPTIONS
        assert isinstance(node.RETURN_TYPES, tuple)
        assert set(node.RETURN_TYPES) <= COMFYUI_TYPES | OWN_TYPES
        assert len(getattr(node, "RETURN_NAMES", node.RETURN_TYPES)) == len(node.RETURN_TYPES)
        assert bool(node.RETURN_TYPES) != getattr(node, "OUTPUT_NODE", False)
        assert node.CATEGORY == "lavibridge"
        called = inspect.signature(getattr(node(), node.FUNCTION)).parameters
        assert called.keys() == inputs.keys()
        for name in node.INPUT_TYPES().get("optional", {}):
            assert called[name].default is None
        if hasattr(node, "IS_CHANGED"):
            assert inspect.signature(node.IS_CHANGED).parameters.keys() <= inputs.keys()


def test_the_workflow_connects_what_fits(package: ModuleType) -> None:
    """In the format that ComfyUI's page saves: nodes with slots and widgets, and links between slots."""
    graph = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    nodes = {node["id"]: node for node in graph["nodes"]}
    assert {node["type"] for node in graph["nodes"]} >= {
        "LaviLoadLanguageModel",
        "LaviLoadBridge",
        "LaviEncodePrompt",
        "LaviApplyBridge",
        "KSampler",
    }
    for node in nodes.values():
        slots, outputs, widgets = declared(package, node["type"])
        assert {slot["name"]: slot["type"] for slot in node.get("inputs", [])} == slots
        assert tuple(slot["type"] for slot in node.get("outputs", [])) == outputs
        assert len(node.get("widgets_values", [])) == widgets
    for number, source, slot, target, place, kind in graph["links"]:
        left, right = nodes[source]["outputs"][slot], nodes[target]["inputs"][place]
        assert left["type"] == right["type"] == kind
        assert number in left["links"]
        assert right["link"] == number
    assert all(slot["link"] for node in nodes.values() for slot in node.get("inputs", []))
    assert graph["last_node_id"] == max(nodes)
    assert graph["last_link_id"] == max(link[0] for link in graph["links"])


def declared(package: ModuleType, name: str) -> tuple[dict[str, str], tuple[str, ...], int]:
    """Slots, outputs and number of widgets of a node; texts, numbers and choices are widgets."""
    if name in CORE_NODES:
        return CORE_NODES[name]
    node = package.NODE_CLASS_MAPPINGS[name]
    widgets = {"STRING", "BOOLEAN", "FLOAT", "INT"}
    inputs = inputs_of(node)
    slots = {key: entry[0] for key, entry in inputs.items() if isinstance(entry[0], str)}
    slots = {key: kind for key, kind in slots.items() if kind not in widgets}
    return slots, node.RETURN_TYPES, len(inputs) - len(slots)


@pytest.mark.skipif(importlib.util.find_spec("comfy") is None, reason="ComfyUI is not here")
def test_comfyui_itself_has_what_the_stand_ins_have() -> None:
    """Run this inside ComfyUI's environment: names and arguments of everything that the nodes call."""
    import comfy.conds
    import comfy.model_base
    import comfy.model_patcher
    import comfy.samplers
    import comfy.sd

    for ours, theirs in (
        (comfyui_contract.ModelPatcher.clone, comfy.model_patcher.ModelPatcher.clone),
        (
            comfyui_contract.ModelPatcher.set_model_unet_function_wrapper,
            comfy.model_patcher.ModelPatcher.set_model_unet_function_wrapper,
        ),
        (comfyui_contract.ModelPatcher.model_patches_to, comfy.model_patcher.ModelPatcher.model_patches_to),
        (comfyui_contract.load_lora_for_models, comfy.sd.load_lora_for_models),
        (comfyui_contract.BaseModel.apply_model, comfy.model_base.BaseModel.apply_model),
    ):
        own, real = inspect.signature(ours).parameters, inspect.signature(theirs).parameters
        needed = [name for name, each in own.items() if each.kind is not each.VAR_KEYWORD and name != "self"]
        assert [name for name in real if name in needed] == needed, f"{theirs} takes {list(real)}"
    source = inspect.getsource(comfy.samplers)
    for name in ("model_function_wrapper", '"input"', '"timestep"', '"c"', '"cond_or_uncond"'):
        assert name in source
    assert hasattr(comfy.conds.CONDCrossAttn, "concat")
