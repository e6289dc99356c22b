"""`joinery tokenizer train`, from text files and from stores."""

import subprocess
import sys
from dataclasses import replace

import pytest
from sentencepiece import SentencePieceProcessor

from core import DataError
from core.store.writer import StoreWriter
from plugins.text.tokenizer import main, read_instructions, train
from tests.factories import make_episodes, make_info

LINES = [
    f"{verb} the {thing}"
    for verb in ("open", "close", "push", "wipe")
    for thing in ("drawer", "door", "lid")
]


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "instructions.txt"
    path.write_text("\n".join([*LINES, "", LINES[0], "  " + LINES[1]]), encoding="utf-8")
    return path


def test_train_writes_a_model_that_reads_back_its_instructions(source, tmp_path, capsys):
    out = tmp_path / "out.model"
    assert main(["train", str(source), str(out), "--vocabulary", "310"]) == 0
    assert capsys.readouterr().out == f"{out}: 310 pieces from 12 instructions\n"
    processor = SentencePieceProcessor(model_file=str(out))
    assert processor.get_piece_size() == 310
    for line in LINES:
        assert processor.decode(processor.encode(line)) == line


def test_the_same_instructions_give_the_same_bytes():
    assert train(LINES, 310) == train(LINES, 310)
    assert train(LINES, 310) != train(LINES, 300)


def test_instructions_are_distinct_and_in_order(source):
    assert read_instructions(source) == LINES


def test_instructions_of_a_store_are_distinct_and_in_order(tmp_path):
    info = make_info()
    tasks = [("a", "open the door"), ("b", "push it"), ("c", "open the door")]
    with StoreWriter(tmp_path / "demo.zarr", info) as writer:
        for episode, (task, instruction) in zip(make_episodes(3, info), tasks, strict=True):
            writer.append(replace(episode, task=task, instruction=instruction))
    assert read_instructions(tmp_path / "demo.zarr") == ["open the door", "push it"]


def run(arguments, capsys):
    """Return the exit code and the one line that a mistake prints."""
    code = main([str(argument) for argument in arguments])
    (line,) = capsys.readouterr().err.splitlines()
    return code, line


def test_a_vocabulary_that_cannot_be_filled_says_what_would(source, tmp_path, capsys):
    code, line = run(["train", source, tmp_path / "out.model", "--vocabulary", 5000], capsys)
    assert code == 1
    limit = int(line.rsplit("--vocabulary ")[1].split()[0])
    assert (
        main(["train", str(source), str(tmp_path / "out.model"), "--vocabulary", str(limit)]) == 0
    )


def test_a_vocabulary_too_small_for_the_characters_says_what_would_do(source, tmp_path, capsys):
    code, line = run(["train", source, tmp_path / "out.model", "--vocabulary", 20], capsys)
    assert code == 1
    needed = int(line.rsplit("--vocabulary ")[1].split()[0])
    assert (
        main(["train", str(source), str(tmp_path / "out.model"), "--vocabulary", str(needed)]) == 0
    )


@pytest.mark.parametrize("vocabulary", ["-3", "0", "99999999999", "9" * 5000, "many", "\u00b2"])
def test_a_nonsensical_vocabulary_is_refused(source, tmp_path, capsys, vocabulary):
    with pytest.raises(SystemExit) as stop:
        main(["train", str(source), str(tmp_path / "out.model"), f"--vocabulary={vocabulary}"])
    assert stop.value.code == 2
    assert "--vocabulary: expected a number of pieces from 1 to 1000000" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "message"),
    [("open " + "a" * 4188, "'open aaa.*has 4193 bytes"), ("a \u2585", "reserves")],
)
def test_a_line_that_sentencepiece_would_pass_over_is_named(line, message):
    with pytest.raises(DataError, match=message):
        train([*LINES, line], 310)
    assert train([*LINES, "a" * 4192], 310) != train(LINES, 310)


def test_an_existing_model_is_kept(source, tmp_path, capsys):
    out = tmp_path / "out.model"
    out.write_bytes(b"precious")
    code, line = run(["train", source, out], capsys)
    assert code == 1
    assert "out.model" in line
    assert out.read_bytes() == b"precious"


def test_a_place_that_cannot_be_written_is_named(source, tmp_path, capsys):
    code, line = run(
        ["train", source, tmp_path / "nowhere" / "out.model", "--vocabulary", 310], capsys
    )
    assert code == 1
    assert "nowhere" in line


@pytest.mark.parametrize("content", [None, b"", b"\n \n", b"\xff\xfe\x00"])
def test_a_source_without_instructions_is_named(tmp_path, content):
    path = tmp_path / "some.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"some\.txt"):
        read_instructions(path)


def test_help_waits_for_no_heavy_library():
    script = (
        "import sys, plugins.text.tokenizer; "
        "print([m for m in ('torch', 'sentencepiece', 'zarr') if m in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"
