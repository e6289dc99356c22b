"""Rules that no type checker knows: who imports whom, how long a function may be."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from core.cli import COMMANDS

ROOT = Path(__file__).parents[1]
CORE = sorted((ROOT / "core").rglob("*.py"))
PLUGINS = sorted((ROOT / "plugins").rglob("*.py"))
HEADS = [path for path in PLUGINS if path.relative_to(ROOT).parts[1] in ("heads", "policies")]
# The rooms of core, lowest first, each with what it answers. A room imports only rooms before it in
# this list, so there is no circle. `python -m tests.test_architecture` draws them for the docs.
ROOMS = {
    "errors": "what goes wrong",
    "system": "files, progress, worker processes, optional libraries",
    "episodes": "what numbers mean: episodes, conventions, statistics, normalisation",
    "weights": "published weights, checkpoints",
    "contracts": "what each kind of part must do, and what flows between them",
    "registry": "plugins, hooks, names of components",
    "store": "the episode store: reading, writing, checking, repairing",
    "recipe": "a TOML file becomes checked dataclasses",
    "loading": "windows, mixtures, batches: the loader",
    "formats": "readers and writers of other formats",
    "policy": "the policy, its assembly, losses, adapters",
    "training": "the training step and all around it",
    "environments": "environments, each in a process of its own",
    "rollout": "a policy acts in environments: one attempt, many at once",
    "demonstrations": "an expert acts, and is recorded",
    "evaluation": "success rates, with controls and intervals",
    "report": "pages about runs and stores",
    "sweep": "many runs: variants of recipes, seeds, clusters",
    "testing": "contract tests for the authors of plugins",
    "api": "the Python API",
    "commands": "one file for each command",
    "run": "the main job: train, evaluate, report",
    "cli": "joinery COMMAND",
}
LONGEST_FILE_OF_A_HEAD = 200  # lines
LONGEST_FUNCTION = 60


def names_in(path: Path) -> set[str]:
    """The names that a file re-exports: `from x import name as name`."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    aliases = (alias for node in body if isinstance(node, ast.ImportFrom) for alias in node.names)
    return {alias.asname for alias in aliases if alias.asname}


def listing_of(room: str) -> Path:
    """The file that lists a room's names: the stub, if the names are looked up on first use."""
    stub = ROOT / "core" / room / "__init__.pyi"
    return stub if stub.exists() else stub.with_suffix(".py")


# what plugins and other people's programs import, by module
PUBLIC_NAMES = {
    "core": names_in(ROOT / "core" / "__init__.pyi"),
    **{
        f"core.{room}": names_in(listing_of(room))
        for room in ("episodes", "formats", "weights", "environments", "testing")
    },
}


def draw_rooms() -> str:
    """The rooms of core as lines of text, lowest first, for docs/architecture.md."""
    width = max(map(len, ROOMS))
    lines = [
        f"{floor:>5}  {room:<{width}}  {answer}"
        for floor, (room, answer) in enumerate(ROOMS.items())
    ]
    ruler = "─" * max(map(len, lines))
    return "\n".join([f"floor  {'room':<{width}}  what it answers", ruler, *lines])


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[tuple[str, str | None]]:
    """Every import of a file, also those inside functions, as (module, name or None)."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, (
                f"{relative(path)}:{node.lineno}: write the whole name instead of a relative import"
            )
            yield from ((node.module or "", alias.name) for alias in node.names)


def imported_modules(path: Path) -> set[str]:
    """Imported modules; `from package import module` counts as both."""
    return {name for module, leaf in imports(path) for name in (module, f"{module}.{leaf}")}


def room_of(module: str) -> str | None:
    """The room that a dotted name belongs to: core.training.fit -> training."""
    words = module.split(".")
    return words[1] if words[0] == "core" and len(words) > 1 and words[1] in ROOMS else None


@pytest.mark.parametrize("path", CORE, ids=relative)
def test_core_never_imports_plugins(path: Path) -> None:
    assert not [name for name in imported_modules(path) if name.split(".")[0] == "plugins"]


def test_only_the_plugin_manager_names_plugin_modules() -> None:
    modules = {relative(path).removesuffix(".py").replace("/", ".") for path in PLUGINS}
    naming = {
        relative(path)
        for path in CORE
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in modules - {"plugins.__init__"}
    }
    assert naming == {"core/registry/catalogue.py"}


@pytest.mark.parametrize("path", PLUGINS, ids=relative)
def test_plugins_import_only_the_public_surface(path: Path) -> None:
    # a plugin is a module, or a package of its own
    kind_and_name = path.relative_to(ROOT).with_suffix("").parts[:3]
    for module, name in imports(path):
        own = tuple(module.split(".")[:3]) == kind_and_name
        message = f"a plugin stands alone, and this one imports {module}"
        assert own or module.split(".")[0] != "plugins", message
        if module.split(".")[0] == "core":
            assert module in PUBLIC_NAMES, f"a plugin imports from {', '.join(PUBLIC_NAMES)}"
            assert name in PUBLIC_NAMES[module], f"{module} offers no {name}"


@pytest.mark.parametrize("path", CORE, ids=relative)
def test_no_import_goes_up(path: Path) -> None:
    """Also none inside a function or for type checkers alone."""
    floors = list(ROOMS)
    own = room_of(".".join(["core", *path.relative_to(ROOT / "core").with_suffix("").parts]))
    if own is None:
        assert path.name == "__init__.py", f"{relative(path)} lies in no room"
        return
    higher = floors[floors.index(own) + 1 :]
    assert not [module for module in imported_modules(path) if room_of(module) in higher]


def test_every_room_is_there() -> None:
    there = {path.relative_to(ROOT / "core").with_suffix("").parts[0] for path in CORE}
    assert there == {*ROOMS, "__init__"}


def test_the_page_shows_the_rooms_as_they_are() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    message = "replace the drawing by what `python -m tests.test_architecture` prints"
    assert f"```text\n{draw_rooms()}\n```" in page, message


def test_the_page_names_functions_that_are_there() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    places = re.findall(r"((?:core|plugins)/[\w/]+\.py):([\w.]+\w)", page)
    assert len(places) > 20
    missing = [f"{file}:{name}" for file, name in places if not is_defined(ROOT / file, name)]
    assert not missing


def is_defined(path: Path, name: str) -> bool:
    """Whether a file defines a function, a class, or a method: `fit`, `Policy`, `Policy.act`."""
    body: list[ast.stmt] = ast.parse(path.read_text(encoding="utf-8")).body if path.exists() else []
    for word in name.split("."):
        definitions = (n for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef))
        found = next((node for node in definitions if node.name == word), None)
        if found is None:
            return False
        body = found.body
    return True


def test_what_runs_beside_an_environment_waits_for_nothing_heavy() -> None:
    assert (
        heavy_modules_after(
            ", core.environments.recovery, core.demonstrations.expert, core.environments.workers"
        )
        == ""
    )


@pytest.mark.parametrize("path", [*CORE, *PLUGINS], ids=relative)
def test_functions_are_short(path: Path) -> None:
    too_long = [
        f"{node.name}: {length} lines"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > LONGEST_FUNCTION
    ]
    assert not too_long


@pytest.mark.parametrize("path", HEADS, ids=relative)
def test_files_of_heads_and_policies_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE_OF_A_HEAD


# ------------------------------------------------------------------------------ the way to the step

Function = tuple[Path, str]


def called_names(function: ast.FunctionDef) -> set[str]:
    """Functions that a function calls by their plain name."""
    return {
        n.func.id
        for n in ast.walk(function)
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
    }


def calls_method(function: ast.FunctionDef, owner: str, method: str) -> bool:
    return any(
        isinstance(n, ast.Call)
        and ast.unparse(n.func) in (f"{owner}.{method}", f"run.{owner}.{method}")
        for n in ast.walk(function)
    )


def definition(path: Path, name: str) -> ast.FunctionDef | None:
    """A function at the top level of a file."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return next(
        (node for node in body if isinstance(node, ast.FunctionDef) and node.name == name), None
    )


def callees(path: Path, function: ast.FunctionDef) -> Iterator[Function]:
    """Functions of core that a function calls, each with the file that defines it."""
    home = {name: ROOT / f"{module.replace('.', '/')}.py" for module, name in imports(path) if name}
    for name in called_names(function):
        target = home.get(name, path)
        if target.exists() and definition(target, name):
            yield target, name


def ways_to_backward(way: list[Function]) -> Iterator[list[Function]]:
    """Every chain of calls from the last function of `way` to one that calls `fabric.backward`."""
    path, name = way[-1]
    function = definition(path, name)
    assert function is not None
    if calls_method(function, "fabric", "backward"):
        yield way
    for callee in callees(path, function):
        if callee not in way:
            yield from ways_to_backward([*way, callee])


def test_the_step_is_four_hops_and_three_files_away() -> None:
    ways = list(ways_to_backward([(ROOT / "core" / "run.py", "main")]))
    assert len({way[-1] for way in ways}) == 1, "one training step, in one place"
    assert sorted([name for _, name in way] for way in ways) == [
        ["main", "dry_run", "fit"],
        ["main", "train", "fit"],
    ]
    for way in ways:
        assert len(way) <= 4, "hops: each call on the way, and the one of backward() itself"
        assert len({path for path, _ in way}) <= 3


def test_the_step_stands_in_the_open() -> None:
    """Forward, backward, clip, step and zero_grad are calls of one function, in this order."""
    function = definition(ROOT / "core" / "training" / "fit.py", "fit")
    assert function is not None
    calls = [ast.unparse(node.func) for node in ast.walk(function) if isinstance(node, ast.Call)]
    lines = {ast.unparse(n.func): n.lineno for n in ast.walk(function) if isinstance(n, ast.Call)}
    step = [
        "run.module",
        "fabric.backward",
        "fabric.clip_gradients",
        "optimizer.step",
        "optimizer.zero_grad",
    ]
    assert all(calls.count(call) == 1 for call in step)
    assert [lines[call] for call in step] == sorted(lines[call] for call in step)


# ------------------------------------------------------------------------------- the public surface


@pytest.mark.parametrize("module", PUBLIC_NAMES)
def test_public_names_are_there(module: str) -> None:
    """Every public name can be imported, and `dir` lists it."""
    for name in PUBLIC_NAMES[module]:
        assert getattr(import_module(module), name) is not None
        assert name in dir(import_module(module))


def heavy_modules_after(code: str) -> str:
    """Run code in a fresh interpreter and return which heavy libraries it has imported."""
    heavy = {"torch", "timm", "zarr", "lightning_fabric"}
    tail = f"print(*sorted({heavy} & set(sys.modules)), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys{code}\n{tail}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    return done.stderr.strip()


def test_importing_core_waits_for_nothing_heavy() -> None:
    assert heavy_modules_after(", core") == ""


@pytest.mark.parametrize("words", [[], *([name] for name in COMMANDS)], ids=" ".join)
def test_help_waits_for_nothing_heavy(words: list[str]) -> None:
    code = f"""
from core.cli import main
try:
    code = main({[*words, "--help"]})
except SystemExit as done:
    code = done.code
assert code == 0, code"""
    assert heavy_modules_after(code) == ""


if __name__ == "__main__":
    print(draw_rooms())
