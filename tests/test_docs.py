"""README and docs/ against the code: commands, keys, hooks and examples must agree with it."""

import ast
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from core.cli import COMMANDS, PLUGIN_COMMANDS
from core.recipe.recipe import load_recipe
from core.registry import hookspecs
from core.registry.catalogue import load_plugins
from core.registry.hookspecs import ComponentKind
from tests.api_page import public_names, render
from tests.key_tables import built_in, tables, with_tables
from tests.test_architecture import PUBLIC_NAMES

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [
    README,
    *(ROOT / f"{name}.md" for name in ("CONTRIBUTING", "CHANGELOG", "SECURITY")),
    *DOCS,
]
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))
STRANGERS = ROOT / "tests" / "third_party"
GUIDE = ROOT / "docs" / "writing-a-plugin.md"


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}: {self.text.splitlines()[0]}"


def blocks(*languages: str) -> list[Block]:
    fence = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    found = (
        Block(page, *match)
        for page in PAGES
        for match in fence.findall(page.read_text(encoding="utf-8"))
    )
    return [block for block in found if block.language in languages]


def shell_lines(block: Block) -> Iterator[list[str]]:
    """The commands of a block as words, without comments and redirections; `a && b` are two."""
    for line in block.text.replace("\\\n", " ").splitlines():
        for part in line.split(" && "):
            words = shlex.split(part, comments=True)
            if words:
                yield words[: words.index(">")] if ">" in words else words


def our_commands() -> list[tuple[str, list[str]]]:
    """Every `joinery X` and `python -m core.X` in README and docs, as (module, arguments)."""
    module_of = {name: module for name, (module, _) in COMMANDS.items()}
    module_of |= {e.name: e.module for e in entry_points(group=PLUGIN_COMMANDS)}
    found = []
    for words in (words for block in blocks("sh") for words in shell_lines(block)):
        if words[0] == "joinery" and len(words) > 1:
            found.append((module_of[words[1]], words[2:]))
        elif words[:2] == ["python", "-m"] and words[2].startswith("core."):
            found.append((words[2], words[3:]))
    return found


# ----------------------------------------------------------------------------------------- commands


def test_documented_modules_exist() -> None:
    commands = [words for block in blocks("sh", "console") for words in shell_lines(block)]
    modules = {words[words.index("-m") + 1] for words in commands if "-m" in words}
    assert "core.run" in modules
    modules.remove("sphinx")  # the only one of others
    for module in modules:
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


def test_readme_gives_the_canonical_commands() -> None:
    lines = [
        line for block in blocks("sh") if block.page == README for line in block.text.splitlines()
    ]
    assert {
        "pip install -e .",
        "python -m core.run recipes/kosmos_lstm.toml",
        "pip install -e '.[test]' && pytest",
    } <= set(lines)


def test_ci_runs_the_readmes_test_command() -> None:
    script = ROOT / ".ci" / "run"
    lines = script.read_text(encoding="utf-8").splitlines()
    linters = [lines.index(line) for line in ("ruff check", "ruff format --check", "mypy")]
    tests, docs = (
        lines.index("pip install -e '.[test]' && pytest"),
        "python -m sphinx -W --keep-going",
    )
    assert max(linters) < next(n for n, line in enumerate(lines) if line.startswith(docs)) < tests
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.parametrize(
    "module", sorted({module for module, _ in our_commands()} | {m for m, _ in COMMANDS.values()})
)
def test_help_of_every_documented_command(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("usage: joinery ")


@pytest.mark.parametrize(
    ("module", "words"),
    our_commands(),
    ids=lambda part: " ".join([part] if isinstance(part, str) else part),
)
def test_documented_commands_are_accepted(
    module: str,
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(ROOT)
    parser = getattr(import_module(module), "_parser", None)
    if parser is None:  # what has no arguments to speak of can run for real
        assert import_module(module).main(words) == 0
        assert capsys.readouterr().out
        return
    arguments = (
        parser().parse_intermixed_args(words)
        if module in ("core.run", "core.commands.sweep")
        else parser().parse_args(words)
    )
    # a recipe of the repository is there: check the overrides, too
    if module == "core.run" and arguments.recipe.parts[0] == "recipes":
        load_recipe(arguments.recipe, arguments.overrides, load_plugins())
    if module == "core.commands.import_":
        assert load_plugins()["dataset"].get(arguments.format) is not None
    if module == "core.commands.write":
        assert load_plugins()["exporter"].get(arguments.format) is not None
    # a sweep's recipes are checked, too; Optuna, which chooses values, may be missing
    if module == "core.commands.sweep" and arguments.method != "optuna":
        assert import_module(module).main([*words, "--dry-run"]) == 0


@pytest.mark.parametrize("block", blocks("console"), ids=str)
def test_shown_mistakes_are_what_one_sees(
    block: Block, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    command, _, output = block.text.partition("\n")
    dollar, python, flag, module, *words = shlex.split(command)
    assert [dollar, python, flag] == ["$", "python", "-m"]
    assert import_module(module).main(words) == 2
    assert capsys.readouterr().err == output


def test_no_figure_is_missing() -> None:
    assert [page.name for page in PAGES if "<!--" in page.read_text(encoding="utf-8")] == []


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_every_recipe_is_headed_by_its_command(recipe: Path) -> None:
    head = recipe.read_text(encoding="utf-8").partition("\n[")[0]
    assert re.search(
        rf"^#   python -m core\.run recipes/{recipe.name} +\(.+\)$", head, re.MULTILINE
    ), "state command and cost"
    assert "# Measured: " in head
    load_recipe(recipe, [], load_plugins())


# ---------------------------------------------------------------------------------------- reference


def test_hooks_page_has_every_exact_signature() -> None:
    page = (ROOT / "docs" / "hooks.md").read_text(encoding="utf-8")
    specs = ast.parse(Path(hookspecs.__file__).read_text(encoding="utf-8"))
    functions = [node for node in specs.body if isinstance(node, ast.FunctionDef)]
    assert len(functions) == 11
    for node in functions:
        returns = ast.unparse(node.returns or ast.Constant(None))
        assert f"## `{node.name}({ast.unparse(node.args)}) -> {returns}`" in page
        assert ast.get_docstring(node) in page


@pytest.mark.parametrize("page", sorted({page for page, _, _ in tables()}))
def test_tables_of_keys_are_as_the_code_has_them(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert text == with_tables(page, text), "make them anew: python -m tests.key_tables"


@pytest.mark.parametrize(
    ("page", "kind"), [("importing.md", "dataset"), ("exporting.md", "exporter")]
)
def test_pages_list_every_built_in_format(page: str, kind: ComponentKind) -> None:
    top = (ROOT / "docs" / page).read_text(encoding="utf-8").partition("\n## ")[0]
    assert not [c.name for c in built_in(kind) if f"| `{c.name}` |" not in top]


def test_every_public_name_is_documented() -> None:
    names = {
        module: {entry.name for entry in entries} for module, entries in public_names().items()
    }
    assert names.keys() == PUBLIC_NAMES.keys()
    assert all(names[module] >= PUBLIC_NAMES[module] for module in names)
    undocumented = [e.name for entries in public_names().values() for e in entries if not e.summary]
    assert not undocumented, "write a docstring, or one below a constant"


def test_the_list_of_public_names_is_up_to_date() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert page == render(), "make it anew: python -m tests.api_page > docs/api.md"


@pytest.mark.parametrize("module", public_names())
def test_every_public_module_has_a_page_of_reference(module: str) -> None:
    page = ROOT / "docs" / "reference" / f"{module.removeprefix('core.')}.md"
    assert f"```{{public-names}} {module}\n```" in page.read_text(encoding="utf-8")


# ----------------------------------------------------------------------------------------- examples


@pytest.mark.parametrize(
    ("page", "file"),
    [
        (README, "joinery-regression-head/regression_head.py"),
        (README, "joinery-regression-head/pyproject.toml"),
        (GUIDE, "joinery-regression-head/regression_head.py"),
        (GUIDE, "joinery-regression-head/pyproject.toml"),
        (GUIDE, "joinery-flow-head/flow_head.py"),
        (GUIDE, "joinery-watch/watch.py"),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else value,
)
def test_the_strangers_files_are_shown_whole(page: Path, file: str) -> None:
    shown = [block.text for block in blocks("python", "toml") if block.page == page]
    assert (STRANGERS / file).read_text(encoding="utf-8") in shown


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_compiles_and_its_imports_exist(block: Block) -> None:
    tree = ast.parse(block.text)
    compile(tree, str(block), "exec")
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "core":
            assert all(
                hasattr(import_module(node.module or ""), alias.name) for alias in node.names
            )


@pytest.mark.parametrize("block", blocks("toml"), ids=str)
def test_toml_is_valid(block: Block) -> None:
    assert tomllib.loads(block.text)


def anchors(page: Path) -> set[str]:
    """What GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), link


def test_readme_names_every_page() -> None:
    text = README.read_text(encoding="utf-8")
    paths = [page.relative_to(ROOT).as_posix() for page in PAGES[1:] if page.name != "index.md"]
    assert [path for path in paths if f"]({path})" not in text] == []


def test_the_sites_contents_name_every_page() -> None:
    contents = (ROOT / "docs" / "index.md").read_text(encoding="utf-8").splitlines()
    assert "w*" in contents  # pages that begin with w
    named = [page for page in DOCS if page.stem in contents or page.stem.startswith("w")]
    assert {page.name for page in DOCS} - {page.name for page in named} == {"index.md"}
