"""Changes to a stranger's files by a seed: damage, links, pipes, claims, and pickles that run code.

    python -m tests.hostile BOX KIND FIRST COUNT

tries some of them in the folder BOX, with little memory, and prints what was wrong as JSON.
"""

import faulthandler
import io
import json
import os
import pickle
import random
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from traceback import format_exc
from typing import Any

import numpy as np

from core.cli import main as joinery
from core.commands.command import command
from core.evaluation.results_log import ResultsLog, read_results
from core.rollout.actor import load_actor
from core.store.layout import checksum
from core.system.console import output, printable
from tests.factories import make_store
from tests.plugins.test_damaged_sources import BY_NAME, Format

MEMORY = 2**30  # bytes that a command may allocate beyond what the modules take
PATIENCE = 60  # seconds until a command counts as hanging
RUN = Path(__file__).parent / "data" / "first_edition" / "run"
# lines of the standard error that are no error
PROGRESS = ("importing ", "writing ", "warning: ", "skipped ", "  ")
MINE = {"letter.txt": "precious", "photos/holiday.jpg": "blue", "results.json": "{}"}


# --------------------------------------------------------------------------------- what is changed


class Payload:
    """Unpickling it makes the file `proof`, beside the user's own files."""

    def __init__(self, box: Path) -> None:
        self.proof = str(box / "proof")

    def __reduce__(self) -> Any:
        return os.mkdir, (self.proof,)


def values(box: Path) -> list[Any]:
    """What a stranger may write in the place of a value."""
    return [
        *(None, True, -1, 0, 2**31 - 1, 2**63, 10**40, 1e308, "", [], {}, [[]]),
        *("../../mine", str(box / "mine" / "letter.txt"), "/dev/zero", "a/../../mine", "..", "\0"),
        *("\x1b[2J\x1b]0;mine\x07", "\u202egnp", "a\nerror: b", "x" * 10_000, "{x.__class__}"),
        *("${oc.env:HOME}", {"_target_": "os.mkdir", "_args_": [str(box / "proof")]}),
        json.loads("[" * 400 + "]" * 400),
    ]


def change_value(tree: Any, draw: random.Random, choices: list[Any]) -> Any:
    """Replace, remove or rename a value somewhere in a tree of lists and dictionaries."""
    if not isinstance(tree, dict | list) or not tree or draw.random() < 0.15:
        return draw.choice(choices)
    keys = list(tree) if isinstance(tree, dict) else range(len(tree))
    key = draw.choice(keys)
    kind = draw.random()
    if kind < 0.1:
        del tree[key]
    elif kind < 0.2 and isinstance(tree, dict):
        tree[str(draw.choice(choices))[:300]] = tree.pop(key)
    else:
        tree[key] = change_value(tree[key], draw, choices)
    return tree


def change_json(file: Path, draw: random.Random, box: Path) -> None:
    """Change a value of a JSON file, or of one of its lines; checksums are made right again."""
    lines = file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]
    number = draw.randrange(len(lines))
    tree = change_value(json.loads(lines[number]), draw, values(box))
    for key in ("commit", "content"):
        if isinstance(tree, dict) and key in tree and "crc32c" in tree:
            canonical = json.dumps(tree[key], sort_keys=True, separators=(",", ":"))
            tree["crc32c"] = checksum(canonical.encode())
    lines[number] = json.dumps(tree)
    file.write_text("\n".join(lines) + "\n")


def change_words(file: Path, draw: random.Random, box: Path) -> None:
    """Replace a word of a text file."""
    words = file.read_text().split(" ")
    words[draw.randrange(len(words))] = str(draw.choice(values(box)))
    file.write_text(" ".join(words), errors="replace")


def nest(file: Path, draw: random.Random, _: Path) -> None:
    file.write_text(draw.choice(["[", '{"a":', "a=["]) * 200_000)


def flip(file: Path, draw: random.Random, _: Path) -> None:
    content = bytearray(file.read_bytes())
    for _number in range(draw.randint(1, 8)):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(content)


def claim(file: Path, draw: random.Random, _: Path) -> None:
    """Write a large number somewhere, which may be a length."""
    content = bytearray(file.read_bytes())
    number = draw.choice([2**31 - 1, 2**32 - 1, 2**40, 2**63 - 1]).to_bytes(8, "little")
    size = draw.choice([4, 8])
    begin = draw.randrange(len(content)) if draw.random() < 0.5 else draw.randrange(16)
    content[begin : begin + size] = number[:size]
    file.write_bytes(content)


def cut(file: Path, draw: random.Random, _: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: draw.randrange(len(content))])


def unpickle(file: Path, draw: random.Random, box: Path) -> None:
    """Put a pickle that runs code in the place of the file, in one of the ways to be loaded."""
    array = np.array([Payload(box)], dtype=object)
    with file.open("wb") as stream:
        if file.suffix == ".npz":
            known = draw.choice(["action", "task", "rgb_static", "names", "a"])
            np.savez(stream, **{known: array})  # type: ignore[arg-type]
        elif file.suffix == ".npy":
            np.save(stream, array, allow_pickle=True)
        else:
            pickle.dump(Payload(box), stream)


def move_out(path: Path, box: Path) -> Path:
    """Move a file or folder to the user's own files, where a link that is followed works."""
    taken = box / "mine" / "taken" / path.name
    shutil.rmtree(taken.parent, ignore_errors=True)
    taken.parent.mkdir()
    return Path(shutil.move(path, taken))


def replace_by_link(file: Path, draw: random.Random, box: Path) -> None:
    if draw.random() < 0.5:
        file.symlink_to(move_out(file, box))
        return
    file.unlink()
    file.symlink_to(draw.choice([box / "mine" / "letter.txt", box / "mine", Path("/dev/zero")]))


def replace_by_pipe(file: Path, _: random.Random, __: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def link_folder(file: Path, draw: random.Random, box: Path) -> None:
    """Move the file's folder out, or drop it, and put a link in its place."""
    folder = draw.choice([file.parent, *file.parents[1:3]])
    if box / "case" not in folder.parent.parents:  # the whole thing may be a link of the user's
        return
    if draw.random() < 0.5:
        folder.symlink_to(move_out(folder, box))
        return
    shutil.rmtree(folder)
    folder.symlink_to(box / "mine")


def add_link(file: Path, draw: random.Random, box: Path) -> None:
    """Add a link of a name at which something may be written."""
    names = (".lock", "edits", "parts.damaged", "commits.repaired", "report.html", "evaluation")
    place = draw.choice([file.parent, *file.parents[1:3]]) / draw.choice(names)
    if box / "case" in place.parent.parents and not place.exists():
        place.symlink_to(draw.choice([box / "mine", box / "mine" / "letter.txt"]))


ANY = (flip, claim, cut, nest, unpickle, replace_by_link, replace_by_pipe, link_folder, add_link)


def change(folder: Path, draw: random.Random, box: Path) -> str:
    """Make up to two changes to the files of a folder, and say which."""
    made = []
    for _ in range(draw.randint(1, 2)):
        files = sorted(f for f in folder.rglob("*") if f.is_file() and not f.is_symlink())
        files = [file for file in files if file.stat().st_size]
        if not files:
            break
        # small files say what the others are
        telling = [f for f in files if f.suffix in (".json", ".jsonl", ".toml")]
        file = draw.choice(telling if telling and draw.random() < 0.6 else files)
        kinds: tuple[Callable[[Path, random.Random, Path], None], ...] = ANY
        if file.suffix in (".json", ".jsonl"):
            kinds = (*ANY, *[change_json] * len(ANY))
        elif file.suffix == ".toml":
            kinds = (*ANY, *[change_words] * len(ANY))
        kind = draw.choice(kinds)
        made.append(f"{kind.__name__} {file.relative_to(folder)}")
        try:
            kind(file, draw, box)
        except (ValueError, UnicodeError):  # no JSON, after the first change
            flip(file, draw, box)
    return ", ".join(made)


# ---------------------------------------------------------------------------------- what is tried


def load(run: Path) -> int:
    """Do what an evaluation does before the first attempt."""

    @command
    def main(_: list[str] | None = None) -> int:
        read_results(run / "evaluation")
        ResultsLog(run / "evaluation", {"policy": {}, "environment": {}, "protocol": {}})
        return len(load_actor(run).info.cameras)

    return min(main([]), 2)


def imported(format_: Format, source: Path) -> int:
    words = [format_.name, str(source), "out.zarr", *format_.settings, "--jobs", "1"]
    return joinery(["import", *words, "--skip-bad"])


@dataclass(frozen=True)
class Kind:
    """What a stranger hands over: how it is made, and what a user does with it."""

    make: Callable[[Path], Any]
    uses: tuple[Callable[[Path], int], ...]


KINDS = {
    "store": Kind(
        lambda path: make_store(path, episodes=3),
        (
            lambda path: joinery(["show", str(path)]),
            lambda path: joinery(["show", str(path), "--html", "out.html"]),
            lambda path: joinery(["verify", str(path)]),
            lambda path: joinery(["repair", str(path)]),
            lambda path: joinery(["edit", str(path), "fps=5"]),
            lambda path: joinery(["write", "robomimic", str(path), "out.hdf5"]),
        ),
    ),
    "run": Kind(
        lambda path: shutil.copytree(RUN, path),
        (
            lambda path: joinery(["report", str(path)]),
            lambda path: joinery(["compare", str(path), str(RUN), "--output", "out.html"]),
            load,
        ),
    ),
    **{
        name: Kind(format_.write, (partial(imported, format_),))
        for name, format_ in sorted(BY_NAME.items())
    },
}


def tree(folder: Path) -> dict[str, bytes | None]:
    """Return everything in a folder, except in the folders `case` and `work`."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if path.relative_to(folder).parts[0] not in ("case", "work")
    }


def judge(code: int | str, out: str, err: str) -> Iterator[str]:
    """Yield what a user should not have seen."""
    if code not in (0, 1, 2):
        yield f"ended with {code}"
    for text in (out, err):
        if printable(text) != text:
            yield f"shows control codes: {text!r}"
    if code == 0:
        return
    lines = [line for line in err.splitlines() if not line.startswith(PROGRESS)]
    wrong = [line for line in lines if not line.startswith(("error: ", "usage: "))]
    if wrong or not (lines or out):  # verify prints what is damaged
        yield f"says no mistake in one line: {(wrong or [out])[0][:300]!r}"


def try_one(box: Path, kind: Kind, template: Path, seed: int) -> list[str]:
    """Change a copy of a template by a seed, use it once, and return what was wrong."""
    draw = random.Random(seed)
    case, work = box / "case", box / "work"
    for folder in (case, work):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    thing = case / f"{template.name}"
    shutil.copytree(template, thing)
    changes = change(thing, draw, box)
    os.chdir(work)
    before, out, err = tree(box), io.StringIO(), io.StringIO()
    faulthandler.dump_traceback_later(PATIENCE, exit=True, file=sys.__stderr__)
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code: int | str = draw.choice(kind.uses)(thing)
    except BaseException:  # noqa: BLE001 (whatever it was, a user would have seen it)
        code = f"a traceback: {format_exc()[-1500:]}"
    finally:
        faulthandler.cancel_dump_traceback_later()
    wrong = list(judge(code, out.getvalue(), err.getvalue()))
    if (after := tree(box)) != before:
        names = {name for name in {*after, *before} if after.get(name) != before.get(name)}
        wrong.append(f"changed outside: {sorted(names)}")
        (box / "proof").rmdir() if (box / "proof").exists() else None
    return [f"seed {seed} ({changes}): {line}" for line in wrong]


def limit_memory() -> None:
    """Let this process allocate MEMORY bytes more than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main(box: Path, name: str, first: int, count: int) -> list[str]:
    """Try seeds first..first+count-1 of a kind; return what was wrong, a line each."""
    for file, content in MINE.items():
        (box / "mine" / file).parent.mkdir(parents=True, exist_ok=True)
        (box / "mine" / file).write_text(content)
    kind, template = KINDS[name], box / "template" / "thing.zarr"
    template.parent.mkdir()
    kind.make(template)
    (box / "case").mkdir()
    shutil.copytree(template, box / "case" / "whole")
    (box / "work").mkdir()
    os.chdir(box / "work")
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        for number, use in enumerate(kind.uses):  # modules are imported before memory is limited
            whole = box / "case" / f"whole{number}"
            assert use(Path(shutil.copytree(template, whole))) in (0, 1), f"{name}: not whole"
    limit_memory()
    return [
        line for seed in range(first, first + count) for line in try_one(box, kind, template, seed)
    ]


if __name__ == "__main__":
    place, kind_name, begin, number = sys.argv[1:]
    found = main(Path(place), kind_name, int(begin), int(number))
    output().print(json.dumps(found), soft_wrap=True)
