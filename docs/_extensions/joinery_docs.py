"""An extension of Sphinx for this project: where links lead, and how docstrings are written."""

import ast
import inspect
import os
import re
from functools import cache, cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from tests.api_page import ROOT, comments, public_names

LINK = re.compile(r"(?<=\]\()(?!\w+:|#|<)([^)\s#]+)")
PROJECT_PAGES = {"CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"}


# -------------------------------------------------------------------------------------------- links


def site_target(target: str, folder: Path, page_folder: Path) -> str:
    """Where a link of a file in `folder` leads when a page in `page_folder` shows it.

    Links are written for a code host, from file to file. On the site the README is the first page,
    and some other files at the root have pages of their own.
    """
    path = Path(os.path.normpath(folder / target))
    if path == ROOT / "README.md":
        path = ROOT / "docs" / "index.md"
    elif path.parent == ROOT and path.name in PROJECT_PAGES:
        path = ROOT / "docs" / "project" / path.name.lower()
    relative = PurePosixPath(os.path.relpath(path, page_folder)).as_posix()
    return relative if path.is_relative_to(ROOT / "docs") else f"path:{relative}"


def move_links(text: str, folder: Path, page_folder: Path) -> str:
    """Rewrite the relative links of a text; where a link shows a file name, show the title."""
    text = re.sub(r"\[(?:docs/)?[\w-]+\.md\]\((?=(?:docs/)?[\w-]+\.md)", "[](", text)
    return LINK.sub(lambda match: site_target(match[1], folder, page_folder), text)


def read_page(app: Sphinx, docname: str, source: list[str]) -> None:
    """Before a page is parsed."""
    if Path(app.env.doc2path(docname)).suffix == ".md":  # a notebook is JSON
        folder = (Path(app.srcdir) / docname).parent
        source[0] = move_links(source[0], folder, folder)
    if docname == "api":
        source[0] = link_to_reference(source[0])


def read_included(app: Sphinx, file: Path, _docname: str, source: list[str]) -> None:
    """Before a file that a page includes is parsed."""
    # MyST gives the page's name without its folder, the application with it
    folder = Path(os.path.normpath(Path(app.srcdir) / file)).parent
    source[0] = move_links(source[0], folder, (Path(app.srcdir) / app.env.docname).parent)


def link_to_reference(page: str) -> str:
    """Let the list of public names lead to their descriptions rather than to the source."""
    module, lines = "", []
    for line in page.splitlines():
        module = line.removeprefix("## ") if line.startswith("## ") else module
        lines.append(re.sub(r"^\| \[`(\w+)`\]\([^)]+\)", rf"| {{py:obj}}`\1 <{module}.\1>`", line))
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------- reference


class PublicNames(SphinxDirective):
    """Describes all public names of a module: `{public-names} core.episodes`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Hand each name to autodoc."""
        (module,) = self.arguments
        lines = ["```{eval-rst}", f".. automodule:: {module}", ""]
        for entry in public_names()[module]:
            lines.append(f".. auto{entry.kind}:: {module}.{entry.name}")
            if entry.kind == "class":
                lines += [f"   {line}" for line in described_members(entry.value)]
            lines.append("")
        return self.parse_text_to_nodes("\n".join([*lines, "```"]))


def described_members(cls: type) -> list[str]:
    """Options and content of autoclass: methods and properties by name, fields as a list."""
    members = [
        name for name, member in vars(cls).items() if has_docstring(member) and name[0] != "_"
    ]
    said = {name: text for name, text in field_comments(cls).items() if name[0] != "_"}
    fields = [f"- **{name}**: {escape(' '.join(text.split()))}" for name, text in said.items()]
    options = [f":members: {', '.join(members)}"] if members else []
    return [*options, "", *fields, ""]


def has_docstring(member: Any) -> bool:
    """Whether a method or a property has one of its own."""
    kinds = (property, classmethod, staticmethod, cached_property)
    return (inspect.isfunction(member) or isinstance(member, kinds)) and bool(member.__doc__)


@cache
def field_comments(cls: type) -> dict[str, str]:
    """What a class says of its fields beside, above or below them."""
    file = Path(inspect.getfile(cls))
    body = ast.parse(file.read_text(encoding="utf-8")).body
    found = [n for n in body if isinstance(n, ast.ClassDef) and n.name == cls.__name__]
    return comments(file, found[0].body) if found else {}


def read_docstring(
    _app: Sphinx, what: str, name: str, value: Any, _options: Any, lines: list[str]
) -> None:
    """Before a docstring is parsed as reStructuredText, which ours are not."""
    names: set[str] = set()
    if what == "data":
        module, _, leaf = name.rpartition(".")
        entry = next(e for e in public_names()[module] if e.name == leaf)
        lines[:] = entry.docstring.splitlines()
    elif callable(value):
        names = {*getattr(value, "__annotations__", ()), *signature_names(value)}
    lines[:] = as_rst(lines, names)


def shorten_signature(
    _app: Sphinx,
    _what: str,
    _name: str,
    value: Any,
    _options: Any,
    signature: str | None,
    returns: str | None,
) -> tuple[str, str | None] | None:
    """Leave out `(*args, **kwargs)`, which classes without a constructor of their own inherit."""
    if inspect.isclass(value) and signature and signature.startswith("(*args"):
        return "", returns
    return (signature.replace("<factory>", "..."), returns) if signature else None


def signature_names(value: Any) -> list[str]:
    """The parameters of something that can be called."""
    try:
        return list(inspect.signature(value).parameters)
    except (TypeError, ValueError):
        return []


def as_rst(lines: list[str], names: set[str]) -> list[str]:
    """A docstring in plain prose as reStructuredText.

    Backquotes hold code; lines `name: meaning` of parameters and fields become a list; a block that
    is indented below a line that ends with a colon is shown as it stands.
    """
    result: list[str] = []
    in_list = in_code = False
    for line in lines:
        text = line.strip()
        if not text:
            in_list = False
            result.append("")
            continue
        begins_code = result[-1:] == [""] and ends_with_colon(result)
        is_code = line.startswith("    ") and (in_code or begins_code)
        if is_code != in_code:
            result += ["::", ""] if is_code else [""]
            in_code = is_code
        if is_code:
            result.append(line)
            continue
        item = re.match(r"([\w, ]+): (.*)", text)
        if item and {word.strip() for word in item[1].split(",")} <= names:
            result += [] if in_list else [""]
            result.append(f"- **{escape(item[1])}**: {escape(item[2])}")
            in_list = True
        elif text.startswith(("- ", ">>> ")):
            result.append(text if text.startswith(">>>") else f"- {escape(text[2:])}")
            in_list = text.startswith("- ")
        else:
            result.append(("  " if in_list else "") + escape(text))
    return [*result, ""]


def ends_with_colon(lines: list[str]) -> bool:
    """Whether the last paragraph does."""
    return next((line for line in reversed(lines) if line), "").endswith(":")


def escape(text: str) -> str:
    """Mark code, and keep the signs of reStructuredText from meaning anything outside it."""
    words = re.split(r"(`[^`]+`)", text)
    return "".join(
        f"`{word}`" if word.startswith("`") else re.sub(r"([*|\\]|_(?!\w)|`)", r"\\\1", word)
        for word in words
    )


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("public-names", PublicNames)
    app.connect("source-read", read_page)
    app.connect("include-read", read_included)
    app.connect("autodoc-process-docstring", read_docstring)
    app.connect("autodoc-process-signature", shorten_signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
