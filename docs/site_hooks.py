"""Pages that MkDocs builds from elsewhere: the project's documents, commands, recipes, public names.

    README.md, LOG.md, ...  -> index.md, project/*.md     links between them and docs/ still lead there
    lavibridge.__all__      -> reference/python.md
    Recipe, kinds           -> reference/recipe.md
    lavi --help, all verbs  -> reference/cli.md

After the build, a page that would load a script, style, font or image from another host is an error.
"""

import inspect
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pydantic import BaseModel

import lavibridge
from lavibridge.cli.main import app
from lavibridge.cli.show import first_sentence, show_fields
from lavibridge.core.registry import kinds, load_kind
from lavibridge.recipes.recipe import Recipe
from lavibridge.recipes.sections import SECTION_PACKAGES

ROOT = Path(__file__).parent.parent
PAGES = {
    "README.md": "index.md",
    "LOG.md": "project/log.md",
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "STYLE.md": "project/style.md",
}
"""A document outside docs/ -> its page."""
PLAIN = ("CITATION.cff", "LICENSE")
"""Documents that links lead to and that are no pages: they are copied as they are."""
CONTRACTS = (
    ("Values between the stages", "lavibridge.core.contracts"),
    ("Language model", "lavibridge.language.base.LanguageModel"),
    ("Connector", "lavibridge.connectors.base.Connector"),
    ("Vision model", "lavibridge.vision.base.VisionModel"),
    ("Data", "lavibridge.data.base"),
    ("Evaluation", "lavibridge.evaluation.base"),
)
"""Heading -> what a new component of the kind promises."""
WIDTH = 84
"""Characters of a line of help."""
KINDS = {
    "weighting": "diffusion.weighting",
    "timestep_sampling": "diffusion.timestep_sampling",
    "optimizer": "optimizers",
}
"""Fields of `training` that name a kind -> the package of its kinds."""
LOADS = re.compile(
    r"<(?:script|img|iframe|source|video|audio|embed)\b[^>]*\bsrc=[\"']?(?:https?:)?//[^\s\"'>]+"
    r"|<link\b(?=[^>]*rel=[\"']?(?:stylesheet|icon|preload|preconnect|dns-prefetch|prefetch))[^>]*"
    r"href=[\"']?(?:https?:)?//[^\s\"'>]+"
    r"|@import\s+[\"'(]+(?:url\()?[\"']?(?:https?:)?//[^\s\"')]+"
    r"|url\([\"']?(?:https?:)?//[^\s\"')]+",
    flags=re.IGNORECASE,
)
"""What makes a browser ask another host."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made here."""
    for source, place in PAGES.items():
        files.append(File.generated(config, place, content=(ROOT / source).read_text(encoding="utf-8")))
    for name in PLAIN:
        content = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, f"project/{name}.txt", content=content))
    for name, content in {
        "python": python_page(),
        "recipe": recipe_page(),
        "cli": command_page(),
        "contracts": contracts_page(),
    }.items():
        files.append(File.generated(config, f"reference/{name}.md", content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links between the repository's documents at their pages."""
    return relink(markdown, page.file.src_uri)


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse a site that would ask another host for anything."""
    found = [
        f"{path.relative_to(config.site_dir)}: {match[:120]}"
        for path in sorted(Path(config.site_dir).rglob("*"))
        if path.suffix in {".html", ".css"}
        for match in LOADS.findall(path.read_text(encoding="utf-8"))
    ]
    if found:
        raise PluginError("pages would load from another host:\n" + "\n".join(found))


def relink(markdown: str, page: str) -> str:
    """The Markdown of a page with every link to a document outside docs/ changed to that document's page."""
    sources = {place: source for source, place in PAGES.items()}
    home = posixpath.dirname(sources.get(page, f"docs/{page}"))

    def change(match: re.Match[str]) -> str:
        target, anchor = match["target"], match["anchor"] or ""
        if re.match(r"[a-z]+:|/", target):
            return match[0]
        file = posixpath.normpath(posixpath.join(home, target))
        if file in PAGES:
            place = PAGES[file]
        elif file in PLAIN:
            place = f"project/{file}.txt"
        else:
            place = file.removeprefix("docs/")
        return f"]({posixpath.relpath(place, posixpath.dirname(page) or '.')}{anchor})"

    return re.sub(r"\]\((?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)", change, markdown)


def python_page() -> str:
    """Everything that `import lavibridge` gives."""
    text = [
        "# Python\n\n`import lavibridge` gives these names; each is imported when first used, so that the "
        "import itself takes no time.\n"
    ]
    for name in sorted(set(lavibridge.__all__) - {"__version__"}, key=lambda name: (name.islower(), name)):
        public: Any = getattr(lavibridge, name)
        text.append(f"::: {public.__module__}.{public.__qualname__}\n")
    return "\n".join(text)


def contracts_page() -> str:
    """What a new component has to promise."""
    text = [
        "# Contracts\n\nA component is a class that keeps one of these contracts. "
        "[Add a model](../guides/add-a-model.md) adds one of each.\n"
    ]
    for heading, name in CONTRACTS:
        text.append(
            f"## {heading}\n\n::: {name}\n    options: {{heading_level: 3, show_root_toc_entry: false}}\n"
        )
    return "\n".join(text)


def recipe_page() -> str:
    """Every field of a recipe, with default and meaning."""
    text = [
        "# Recipe\n\nA recipe is one YAML file that defines a run. Any field can be set on the command line "
        "by its path, such as `training.steps=2000`. `lavi show RECIPE` prints a recipe with these "
        "explanations.\n\n| section | what it holds |\n| --- | --- |"
    ]
    text += [f"| [`{name}`](#{name}) | {field.description} |" for name, field in Recipe.model_fields.items()]
    for name, field in Recipe.model_fields.items():
        text.append(f"\n## {name}\n")
        if name in SECTION_PACKAGES:
            text += _kinds(name, SECTION_PACKAGES[name])
        else:
            text += _section(name, field.annotation)
        if name == "training":
            for key, package in KINDS.items():
                text.append(f"\n## training.{key}\n")
                text += _kinds(key, package)
    return "\n".join(text)


def _section(section: str, model: Any) -> Iterator[str]:
    """A section's fields, and below them those of the sections inside it."""
    yield _table(model)
    for name, field in model.model_fields.items():
        if name in KINDS:
            continue
        for inner in (field.annotation, *get_args(field.annotation)):
            if inspect.isclass(inner) and issubclass(inner, BaseModel):
                yield f"### {section}.{name}\n\n{first_sentence(inner.__doc__)}\n\n{_table(inner)}"


def _kinds(section: str, package: str) -> Iterator[str]:
    """The fields that all kinds of a section share, and below them each kind's own."""
    configs = {kind: load_kind(package, kind).Config for kind in kinds(package)}
    shared = set.intersection(*(set(_entries(config)) for config in configs.values()))
    first = next(iter(configs.values()))
    if shared:
        yield "Every kind has these fields beside `kind: NAME`:\n"
        yield "\n".join(entry for entry in _entries(first) if entry in shared) + "\n"
    for kind, config in configs.items():
        about = first_sentence(inspect.getmodule(load_kind(package, kind)).__doc__)
        own = [entry for entry in _entries(config) if entry not in shared]
        yield "\n".join([f"### {section} `{kind}`\n\n{about}\n", *own, ""])


def _table(model: Any) -> str:
    """A model's fields as a list."""
    return "\n".join(_entries(model)) + "\n"


def _entries(model: Any) -> list[str]:
    """Each field with its type, default and meaning, as one entry of a list."""
    entries: list[str] = []
    for line in show_fields(model):
        if line.startswith(" "):
            entries[-1] += f"\n  {line.strip()}"
        else:
            entries.append(f"- `{line.replace('lavibridge.', '')}`  ")
    return entries


def command_page() -> str:
    """Every verb of `lavi` with its arguments and options."""
    command = typer.main.get_command(app)
    return "# Command line\n\n" + "\n".join(_command(command, "lavi", 2))


def _command(command: Any, path: str, level: int) -> Iterator[str]:
    settings = {**command.context_settings, "max_content_width": WIDTH, "terminal_width": WIDTH}
    context = command.context_class(command, info_name=path, **settings)
    yield f"{'#' * min(level, 4)} {path}\n\n```text\n{command.get_help(context).strip()}\n```\n"
    for name, verb in sorted(getattr(command, "commands", {}).items()):
        yield from _command(verb, f"{path} {name}", level + (path != "lavi"))
