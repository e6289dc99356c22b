"""All commands, in whatever terminal or pipe: what is printed is readable, and never a fault."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from rich.cells import cell_len

from core import cli
from core.store.writer import StoreWriter
from tests.factories import make_episodes, make_info

TASK = "Öffne – die [Schublade] des sehr langen Schranks 3×5"  # noqa: RUF001
# commands that print what a store or Joinery itself holds
PRINTING = (
    ["show", "STORE"],
    ["verify", "STORE"],
    ["edit", "STORE"],
    ["repair", "STORE"],
    ["plugins", "policy_head"],
    ["schema"],
    ["--version"],
)


@pytest.fixture(scope="module")
def strange_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose path and tasks hold spaces, brackets, and what few encodings have."""
    path = tmp_path_factory.mktemp("ein Ordner – ü") / "-store.zarr"  # noqa: RUF001
    info = make_info()
    with StoreWriter(path, info) as writer:
        for episode in make_episodes(4, info):
            writer.append(replace(episode, task=f"{TASK} {episode.task}"))
    return path


def run(
    words: Sequence[str], encoding: str, columns: int, patch: pytest.MonkeyPatch
) -> tuple[int, str, str]:
    """Run a command here; return its exit code, and what it printed as output and as errors."""
    files = io.BytesIO(), io.BytesIO()
    out, err = (io.TextIOWrapper(file, encoding) for file in files)
    patch.setenv("COLUMNS", str(columns))
    patch.setattr(sys, "stdout", out)
    patch.setattr(sys, "stderr", err)
    try:
        code = cli.main(list(words))
    except SystemExit as end:
        code = int(end.code or 0)
    texts = [file.getvalue().decode(encoding) for file in files]
    out.detach(), err.detach()
    return code, *texts


@pytest.mark.parametrize("columns", [40, 80])
@pytest.mark.parametrize("name", [*cli.COMMANDS, "tokenizer"])
def test_help_fits_the_window_and_says_what_is_written(
    monkeypatch: pytest.MonkeyPatch, name: str, columns: int
) -> None:
    code, out, err = run([name, "--help"], "ascii", columns, monkeypatch)
    assert (code, err) == (0, "")
    _, _, description = out.partition("\n\n")  # the usage before it may be a little wider
    assert max(map(len, description.splitlines())) <= columns
    assert "Writes " in description or name == "tokenizer"


@pytest.mark.parametrize("columns", [40, 60])
def test_the_list_of_commands_fits_the_window(
    monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    code, out, _ = run(["--help"], "ascii", columns, monkeypatch)
    assert code == 0
    assert max(map(len, out.splitlines())) <= columns


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437", "utf-8"])
@pytest.mark.parametrize("words", PRINTING, ids=lambda words: words[0])
def test_every_encoding_is_enough(
    monkeypatch: pytest.MonkeyPatch, strange_store: Path, words: list[str], encoding: str
) -> None:
    arguments = [str(strange_store) if word == "STORE" else word for word in words]
    code, out, err = run(arguments, encoding, 80, monkeypatch)
    assert (code, err) == (0, "")
    assert out


def test_a_mistake_is_shown_in_every_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, err = run(["show", "Übung – [3×]"], "ascii", 40, monkeypatch)  # noqa: RUF001
    assert code == 1
    assert "\\xdcbung - [3x]" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("columns", [40, 60])
def test_numbers_stay_and_names_give_way(
    monkeypatch: pytest.MonkeyPatch, strange_store: Path, columns: int
) -> None:
    _, out, _ = run(["show", str(strange_store)], "utf-8", columns, monkeypatch)
    rows = [line for line in out.splitlines() if line.startswith(" ") and "…" in line]
    assert {row.split()[-1] for row in rows if TASK[:4] in row} >= {"1"}
    assert max(map(cell_len, rows)) <= columns
    wide = run(["show", str(strange_store)], "utf-8", 200, monkeypatch)[1]
    numbers = {word for word in wide.split() if word.lstrip("-").replace(".", "").isdecimal()}
    assert numbers <= set(out.split())


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["evalute", "run"], "error: no command is called 'evalute'; did you mean 'evaluate'?"),
        (["--verison"], "error: no command is called '--verison'; did you mean '--version'?"),
        (["xyz"], "error: no command is called 'xyz'"),
        (["show", "--htlm", "a.zarr"], "joinery show: error: no option is called '--htlm'; did"),
        (["plugins", "optimiser"], "joinery plugins: error: argument KIND: no kind is called 'opt"),
        (["evaluate", "evaluate.episodes=3", "run"], "joinery evaluate: error: argument RUN: 'ev"),
        (["show", "--html", "a.zarr"], "joinery show: error: argument --html: 'a.zarr' is a store"),
    ],
)
def test_a_mistyped_word_is_told_what_is_meant(
    monkeypatch: pytest.MonkeyPatch, words: list[str], line: str
) -> None:
    code, out, err = run(words, "ascii", 300, monkeypatch)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith(line)


def test_no_command_is_a_mistake_that_lists_all(monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, err = run([], "ascii", 80, monkeypatch)
    assert (code, out) == (2, "")
    assert all(f"\n  {name} " in err for name in cli.COMMANDS)


def test_versions_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    _, out, _ = run(["--version"], "ascii", 80, monkeypatch)
    assert [word.split()[0] for word in out.split(", ")] == ["joinery", "Python", "torch"]


# ----------------------------------------------------------------------- as processes of their own


def start(words: Sequence[str], **options: object) -> subprocess.Popen[str]:
    """Start a command; `options` are those of Popen."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", "tests.toy_command", *words]
    return subprocess.Popen(
        command,
        **{"stdout": pipe, "stderr": pipe, "text": True, **options},  # type: ignore[call-overload]
    )


@pytest.mark.parametrize("words", [["--help"], ["show", "--help"], ["show", "STORE"]], ids=" ".join)
def test_a_reader_that_goes_away_is_no_mistake(strange_store: Path, words: list[str]) -> None:
    process = start([str(strange_store) if word == "STORE" else word for word in words])
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")


def test_without_an_output_the_work_is_done(strange_store: Path) -> None:
    script = '"$0" -m core.cli verify "$1" >&-'
    done = subprocess.run(
        ["bash", "-c", script, sys.executable, f"./{strange_store.name}"],
        stderr=subprocess.PIPE,
        text=True,
        cwd=strange_store.parent,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_is_one_line_and_what_was_recorded_stays(tmp_path: Path) -> None:
    store = tmp_path / "out.zarr"
    words = ["collect", "toy", str(store), "--episodes", "1000", "--workers", "2"]
    # a program that was started in the background ignores Ctrl-C, and so do those that it starts
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = start(words, start_new_session=True, preexec_fn=heed)
    try:
        deadline = time.monotonic() + 120
        while not list(store.glob("commits/*.json")) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the workers, too
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    lines = [line for line in err.splitlines() if not line.startswith("collecting ")]
    assert (process.returncode, out, lines) == (130, "", ["interrupted"])
    assert cli.main(["verify", str(store)]) == 0
