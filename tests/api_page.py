"""docs/api.md: every public name with the first line of what its docstring says.

python -m tests.api_page > docs/api.md
"""

import ast
import inspect
import io
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

ROOT = Path(__file__).parents[1]
CORE = ROOT / "core"

HEAD = """# Which names are public?

What plugins and other people's programs may import: these names, and no others of `core`. What
they mean does not change without a line in the [changelog](../CHANGELOG.md). `core` has what the
author of a part needs, and the Python API; for readers and writers of formats, parts with published
weights, environments and tests there are five modules beside it.

This page is made of the docstrings:

```sh
python -m tests.api_page > docs/api.md
```
"""


@dataclass(frozen=True)
class PublicName:
    """A name that a public module offers.

    module: where it is imported from, "core.episodes" for example.
    file: where it is defined.
    """

    module: str
    name: str
    file: Path

    @property
    def value(self) -> Any:
        """What the name stands for."""
        return getattr(import_module(self.module), self.name)

    @property
    def kind(self) -> Literal["class", "function", "data"]:
        """How a reference describes it."""
        if inspect.isclass(self.value) and get_origin(self.value) is None:
            return "class"
        return "function" if inspect.isfunction(self.value) else "data"

    @property
    def docstring(self) -> str:
        """Its docstring; for a constant, the text beside it and the values of a Literal."""
        if self.kind != "data":
            return inspect.getdoc(self.value) or ""
        text = comments(self.file, ast.parse(self.file.read_text(encoding="utf-8")).body).get(
            self.name, ""
        )
        values = get_args(self.value) if get_origin(self.value) is Literal else ()
        listed = ", ".join(f'`"{value}"`' for value in values)
        return f"{text.rstrip('.')}: {listed}." if listed else text

    @property
    def summary(self) -> str:
        """The docstring's first sentence, on one line."""
        first, _, rest = self.docstring.partition("\n")
        paragraph = self.docstring.partition("\n\n")[0]
        return first if first.endswith(".") or not rest else " ".join(paragraph.split())


def comments(file: Path, body: list[ast.stmt]) -> dict[str, str]:
    """What is said about the assignments of a module or a class, by name.

    Either by a docstring below the assignment, or by a comment beside or right above it.
    """
    lines = file.read_text(encoding="utf-8")
    tokens = tokenize.generate_tokens(io.StringIO(lines).readline)
    said = {t.start[0]: t for t in tokens if t.type == tokenize.COMMENT}
    found = {}
    for node, following in zip(body, [*body[1:], None], strict=True):
        if not (name := assigned_name(node)):
            continue
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            found[name] = inspect.cleandoc(str(following.value.value))
            continue
        first = node.lineno
        while first - 1 in said and not said[first - 1].line[: said[first - 1].start[1]].strip():
            first -= 1
        numbers = range(first, (node.end_lineno or node.lineno) + 1)
        texts = [said[number].string.lstrip("# ") for number in numbers if number in said]
        if texts:
            sentence = " ".join(texts)
            found[name] = sentence[0].upper() + sentence[1:].rstrip(".") + "."
    return found


def assigned_name(node: ast.stmt) -> str | None:
    """The name on the left of an assignment."""
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return node.target.id
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    return None


def public_names() -> Mapping[str, list[PublicName]]:
    """All public names by module: `core`, and the rooms whose `__init__` offers names."""
    files = [CORE / "__init__.py", *sorted(CORE.glob("*/__init__.py"))]
    stubs = {file: file.with_suffix(".pyi") for file in files}
    modules = {
        ".".join(file.parent.relative_to(ROOT).parts): stub if stub.exists() else file
        for file, stub in stubs.items()
    }
    names = {
        module: sorted(names_of(module, file), key=by_name) for module, file in modules.items()
    }
    return {module: entries for module, entries in names.items() if entries}


def by_name(entry: PublicName) -> str:
    """Capital letters do not count."""
    return entry.name.lower()


def names_of(module: str, file: Path) -> Iterator[PublicName]:
    """Names that a file offers: `from x import name as name`, and public functions of its own."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            home = f"{module}.{node.module}" if node.level else node.module or ""
            path = ROOT / f"{home.replace('.', '/')}.py"
            yield from (PublicName(module, a.name, path) for a in node.names if a.asname == a.name)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield PublicName(module, node.name, file)


def render() -> str:
    """The page."""
    sections = [HEAD]
    for module, entries in public_names().items():
        rows = [
            f"| [`{e.name}`](../{e.file.relative_to(ROOT).as_posix()}) | {cell(e.summary)} |"
            for e in entries
        ]
        sections += ["\n".join([f"## {module}\n", "| name | what it is |", "|---|---|", *rows, ""])]
    return "\n".join(sections)


def cell(text: str) -> str:
    """A text as a cell of a Markdown table."""
    return text.replace("|", r"\|")


if __name__ == "__main__":
    print(render(), end="")
