"""The tables of configuration keys in the docs, made from the docstrings below the fields.

python -m tests.key_tables        rewrites the tables of all pages in place
"""

import json
import re
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path

from core.formats import ConventionOverride, SourceMapping
from core.recipe.contents import PARTS
from core.recipe.sections import ENVIRONMENT_SECTIONS, SECTIONS, StoreConfig
from core.recipe.train_section import StageConfig
from core.registry.catalogue import load_plugins
from core.registry.components import Component, Parameter, parameters_of
from core.registry.hookspecs import ComponentKind
from core.registry.part_settings import PartSettings
from core.store.edits import Edit

DOCS = Path(__file__).parents[1] / "docs"
HEADER = "| key | type | default | meaning |\n|---|---|---|---|\n"


def row(parameter: Parameter) -> str:
    """One key as a row of a table: name, type, default as TOML writes it, meaning."""
    types = parameter.type.replace("'", '"').replace("|", r"\|")
    default = "unset" if parameter.default is None else json.dumps(parameter.default, default=str)
    shown = "required" if parameter.default is MISSING else f"`{default}`"
    return f"| `{parameter.name}` | `{types}` | {shown} | {parameter.meaning} |\n"


def built_in(kind: ComponentKind) -> list[Component]:
    return [c for c in load_plugins()[kind] if c.plugin.name.startswith("plugins.")]


def tables() -> Iterator[tuple[str, str, type]]:
    """(page, heading, configuration) of every table that stands in the docs."""
    for name, config in {**SECTIONS, **ENVIRONMENT_SECTIONS}.items():
        yield "recipes.md", f"## [{name}]", config
    yield "recipes.md", "## [[train.stages]]", StageConfig
    yield "recipes.md", "## The five parts", PartSettings
    for kind in (*PARTS, "optimizer"):
        for component in built_in(kind):
            yield "recipes.md", f'## [{kind}] name = "{component.name}"', component.config
    for component in built_in("logger"):
        yield "recipes.md", f'## The logger "{component.name}"', component.config
    yield "mixtures.md", "", StoreConfig
    yield "importing.md", "", ConventionOverride
    yield "importing.md", "## The mapping", SourceMapping
    yield "episode-store.md", "## Corrections", Edit
    for page, format_kind in (("importing.md", "dataset"), ("exporting.md", "exporter")):
        for component in built_in(format_kind):  # type: ignore[arg-type]
            yield page, f"## {component.name}", component.config
    for component in built_in("environment"):
        page = "calvin.md" if component.name == "calvin" else "environments.md"
        yield page, "" if component.name == "calvin" else f"## {component.name}", component.config


def own_parameters(config: type) -> list[Parameter]:
    """The keys of a configuration, without those that all formats share."""
    is_format = issubclass(config, SourceMapping) and config is not SourceMapping
    shared = {f.name for f in fields(SourceMapping)} if is_format else set()
    return [parameter for parameter in parameters_of(config) if parameter.name not in shared]


def with_tables(page: str, text: str) -> str:
    """The page's text with every row of its tables as the code has it, in the order of the fields.

    Rows of other tables, and of fields that a table leaves out, stay as they are.
    """
    for name, heading, config in tables():
        if name != page or not (parameters := own_parameters(config)):
            continue
        begin = text.index(f"\n{heading}\n") + len(heading) + 1 if heading else 0
        end = text.find("\n## ", begin + 1) if heading else -1
        section = text[begin : end + 1 if end != -1 else len(text)]
        names = "|".join(re.escape(p.name) for p in parameters)
        old = re.search(rf"(?:^\| `(?:{names})` \| `.*\n)+", section, re.MULTILINE)
        if old is None:
            raise LookupError(f"docs/{page}, {heading}: no table with the keys of {config}")
        new = section[: old.start()] + "".join(map(row, parameters)) + section[old.end() :]
        text = text[:begin] + new + text[begin + len(section) :]
    return text


def main() -> None:
    for page in sorted({page for page, _, _ in tables()}):
        path = DOCS / page
        path.write_text(with_tables(page, path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
