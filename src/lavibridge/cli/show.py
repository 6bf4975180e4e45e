"""`lavi show`: lists the components that can be combined, and explains every setting."""

from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel

SHOWN_PACKAGES = {
    "language": "language",
    "vision": "vision",
    "image_encoder": "image_encoder",
    "connectors": "connectors",
    "data": "data",
    "metrics": "evaluation.metrics",
    "prompts": "evaluation.prompts",
    "samplers": "generation.samplers",
    "weightings": "diffusion.weighting",
    "timesteps": "diffusion.timestep_sampling",
    "optimizers": "optimizers",
}
"""The name of a pool on the command line, and the package that holds it."""

_WHAT = typer.Argument(
    None,
    metavar="[WHAT]",
    help="A pool (languages, visions, image_encoders, connectors, data, metrics, prompts, samplers, "
    "weightings, timesteps, optimizers, studies), a recipe (name or file), proxy, or PACKAGE.KIND such as "
    "connector.lavi or study.ablation.  [default: everything]",
)


def show(what: str | None = _WHAT) -> None:
    """List the components that you can combine, and explain their settings.

    \b
    lavi show                              all components
    lavi show languages                    one pool, kind by kind
    lavi show mini-llama_mini-sd_lavi      a recipe, with an explanation of every field
    lavi show connector.lavi               the settings of a component
    lavi show proxy                        the settings of language.proxy
    """
    from lavibridge.study.shipped import shipped_studies

    if what is None:
        _everything()
        return
    if what == "studies":
        _studies()
        return
    if what == "proxy":
        from lavibridge.language.parts.proxy import ProxySettings

        print(f"language.proxy: {first_sentence(ProxySettings.__doc__)}\n")
        print("\n".join(show_fields(ProxySettings)))
        return
    package, _, kind = what.partition(".")
    if package == "study" and kind in shipped_studies():
        print(shipped_studies()[kind].read_text(encoding="utf-8"), end="")
        return
    packages = {name.removesuffix("s"): package for name, package in SHOWN_PACKAGES.items()} | SHOWN_PACKAGES
    pools = packages | {f"{name}s": package for name, package in SHOWN_PACKAGES.items()}
    if what in pools:
        _pool(pools[what])
        return
    if kind and package in packages:
        from lavibridge.core.registry import load_kind

        component = load_kind(packages[package], kind)
        settings = show_fields(component.Config) if hasattr(component, "Config") else []
        print(f"{what}: {first_sentence(component.__doc__)}{'' if settings else ' It has no settings.'}\n")
        print("\n".join(settings))
        return
    from lavibridge.recipes.recipe import load_recipe

    print("\n".join(_documented_config(load_recipe(what, []))))


def _everything() -> None:
    from lavibridge.core.files import shipped_configurations, shipped_models
    from lavibridge.core.packaged import PACKAGED
    from lavibridge.core.registry import kinds
    from lavibridge.evaluation.shipped import shipped_suites
    from lavibridge.recipes.recipe import shipped_recipes
    from lavibridge.study.shipped import shipped_studies

    for name, package in SHOWN_PACKAGES.items():
        print(f"{name:<11} {'  '.join(kinds(package))}")
    print(f"{'suites':<11} {'  '.join(shipped_suites())}")
    print(f"{'models':<11} {'  '.join(shipped_models())}   (shipped)")
    for name, model in PACKAGED.items():
        place = f"{model.hub_id}, {'installed' if model.path() else model.install}"
        print(f"{'':<11} {name}   ({place})")
    print(
        f"{'':<11} or a folder, a hub id, a GGUF file (language models), a .safetensors file (image models)"
    )
    print(f"{'':<11} published configurations for vision.config: {'  '.join(shipped_configurations())}")
    print(f"{'studies':<11} {'  '.join(shipped_studies())}")
    print(f"{'recipes':<11} " + f"\n{'':<11} ".join(shipped_recipes()))
    print("\nMore: lavi show languages, lavi show connector.lavi, lavi show language.llama, lavi show RECIPE")


def _studies() -> None:
    """Print the question and the number of cells of every shipped study."""
    from lavibridge.study.cells import load_study
    from lavibridge.study.shipped import shipped_studies

    width = max(map(len, shipped_studies()))
    for name in shipped_studies():
        study = load_study(name)
        cells = f"{len(study.grid())} conditions x {len(study.seeds)} seed{'s' * (len(study.seeds) > 1)}"
        print(f"{name:<{width}} {study.question} ({cells})")
    print("\nMore: lavi show study.world-read-outs, lavi study world-read-outs --dry-run")


def _pool(package: str) -> None:
    """Print every kind of a package with its properties."""
    import inspect

    from lavibridge.core.registry import kinds, load_kind

    width = max(10, *map(len, kinds(package)))
    for kind in kinds(package):
        component = load_kind(package, kind)
        print(f"{kind:<{width}} {first_sentence(inspect.getmodule(component).__doc__)}")
        for line in _properties(package, component):
            print(f"{'':<{width}} {line}")
    print(f"\nMore: lavi show {package.rpartition('.')[2].removesuffix('s')}.{kinds(package)[0]}")


def _properties(package: str, component: Any) -> list[str]:
    """The properties of a kind, from its class attributes."""
    if package == "language":
        models = getattr(component, "models", {})
        if component.is_fallback:
            return [f"tested with {', '.join(models)}"]
        return [f"reads {', '.join(models)}; read-out {component.read}"] if models else []
    if package == "vision":
        padding = "masked" if component.honours_mask else "removed, because the denoiser takes no mask"
        known = ", ".join(getattr(component, "published", ()))
        return [
            f"padding is {padding}; default guidance scale {component.default_guidance_scale:g}",
            *([f"published: {known}"] if known else []),
        ]
    if package == "connectors":
        notes = [
            "runs at each step" if component.time_aware else "runs once per prompt",
            *(["adds attention to single layers"] if component.per_block else []),
        ]
        return ["; ".join(notes)]
    return []


def first_sentence(text: str | None) -> str:
    """The first sentence of a docstring."""
    return (text or "").strip().partition("\n")[0]


def show_fields(config: "type[BaseModel]", indent: str = "") -> list[str]:
    """One entry per field of a config: name, default and meaning."""
    lines = []
    for name, field in config.model_fields.items():
        default = "needed" if field.is_required() else repr(field.get_default(call_default_factory=True))
        lines.append(f"{indent}{name}: {_type(field.annotation)} = {default}")
        lines += [f"{indent}    {line}" for line in (field.description or "").splitlines()]
    return lines


def _type(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")


def _documented_config(config: "BaseModel", indent: str = "") -> list[str]:
    """Format a config as YAML that works as a recipe, with a comment on each field."""
    import json

    from pydantic import BaseModel

    lines = []
    for name, field in sorted(type(config).model_fields.items(), key=lambda item: item[0] != "kind"):
        value = getattr(config, name)
        lines += [f"{indent}# {line}" for line in (field.description or "").splitlines()]
        if isinstance(value, BaseModel):
            lines += [f"{indent}{name}:", *_documented_config(value, indent + "  ")]
        else:
            plain = config.model_dump(mode="json", include={name})[name]
            lines.append(f"{indent}{name}: {json.dumps(plain, ensure_ascii=False)}")
    return lines
