"""`joinery tokenizer train SOURCE OUT.model`: train a SentencePiece model on instructions.

`joinery tokenizer NAME ...` calls another plugin's command, an entry point of the group KINDS.
"""

import argparse
import io
import re
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path

from core import DataError, command

# Plugins add further kinds of tokenizers as entry points of this group: name = "module:main".
KINDS = "joinery.tokenizers"
MOST_PIECES = 1_000_000
# maximum number of bytes in an instruction; SentencePiece silently skips longer lines, and lines
# that contain RESERVED
LONGEST = 4192
RESERVED = "\u2585"


@command
def main(argv: list[str] | None = None) -> int:
    """Train a SentencePiece model on the instructions of a source, and write it.

    If the first word is the name of another kind of tokenizer, that kind's command is called.
    """
    words = sys.argv[1:] if argv is None else argv
    kinds = entry_points(group=KINDS)
    if words and words[0] in kinds.names:
        return int(kinds[words[0]].load()(words[1:]))
    arguments = _parser().parse_args(words)
    instructions = read_instructions(arguments.source)
    if arguments.out.exists():
        raise DataError(
            f"'{arguments.out}' exists, and trained policies may depend on it; choose another name"
        )
    model = train(instructions, arguments.vocabulary)
    try:
        arguments.out.write_bytes(model)
    except OSError as error:
        raise DataError(
            f"cannot write '{arguments.out}': {error.strerror}; choose another place"
        ) from error
    print(f"{arguments.out}: {arguments.vocabulary} pieces from {len(instructions)} instructions")
    return 0


def _parser() -> argparse.ArgumentParser:
    """Return the parser of `train`; its help also lists the other kinds."""
    parser = argparse.ArgumentParser(
        prog="joinery tokenizer", description="Make a tokenizer of instructions or actions."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for kind in sorted(entry_points(group=KINDS).names):
        other = commands.add_parser(kind, help=f"`joinery tokenizer {kind} --help` says more")
        other.add_argument("arguments", nargs=argparse.REMAINDER)
    train_parser = commands.add_parser(
        "train",
        help="train a SentencePiece model",
        description="Train a SentencePiece model on instructions.",
    )
    train_parser.add_argument(
        "source", help="a .txt file, one instruction a line, or an episode store"
    )
    train_parser.add_argument("out", type=Path, help="the .model file to write")
    train_parser.add_argument(
        "--vocabulary",
        type=_number_of_pieces,
        default=1000,
        help="number of pieces (default: %(default)s)",
    )
    return parser


def _number_of_pieces(text: str) -> int:
    if not text.isdecimal() or len(text) > 7 or not 1 <= int(text) <= MOST_PIECES:
        raise argparse.ArgumentTypeError(
            f"expected a number of pieces from 1 to {MOST_PIECES}, got '{text}'"
        )
    return int(text)


def read_instructions(source: str | Path) -> list[str]:
    """Return the distinct instructions of a text file or an episode store, in their original order.

    Raises DataError if the source cannot be read, or holds no instruction.
    """
    if str(source).endswith(".txt"):
        try:
            lines = Path(source).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"cannot read '{source}': {error}; give a UTF-8 file, one instruction a line"
            ) from error
    else:
        # imported here, because this import loads torch, and --help should not wait for torch
        from core import open_store

        lines = [instruction for _, instruction in open_store(source).tasks]
    instructions = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not instructions:
        raise DataError(f"'{source}' holds no instruction; write one a line")
    return instructions


def train(instructions: Sequence[str], vocabulary: int) -> bytes:
    """Train byte-pair merges (Sennrich et al. 2016) and return the model, as bytes.

    The same instructions give the same bytes. Even from a small corpus, byte-pair merges make
    frequent words single pieces, while a unigram model would split "red" and "blue" into several
    pieces. Upper case becomes lower case. A character that occurs in no instruction is later
    encoded as its bytes, so that every text can be encoded.

    Raises DataError if the instructions are too few to fill the vocabulary, if the vocabulary is
    too small for their characters, or if SentencePiece cannot take one of the instructions.
    """
    from sentencepiece import SentencePieceTrainer

    for instruction in instructions:
        _check_instruction(instruction)
    model = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=iter(instructions),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocabulary,
            character_coverage=1.0,
            byte_fallback=True,
            normalization_rule_name="nmt_nfkc_cf",
            bos_id=-1,
            eos_id=-1,
            shuffle_input_sentence=False,
            num_threads=1,
            minloglevel=3,
        )
    except RuntimeError as error:
        raise DataError(_explain(str(error), len(instructions), vocabulary)) from error
    return model.getvalue()


def _check_instruction(instruction: str) -> None:
    if (size := len(instruction.encode(errors="replace"))) > LONGEST:
        raise DataError(
            f"the instruction {instruction[:60]!r}... has {size} bytes; shorten it to {LONGEST}"
        )
    if RESERVED in instruction:
        raise DataError(
            f"the instruction {instruction[:60]!r} holds '{RESERVED}', which SentencePiece "
            "reserves; drop it"
        )


def _explain(reason: str, count: int, vocabulary: int) -> str:
    """Turn SentencePiece's error message into a message that says what to do."""
    if limit := re.search(r"value <= (\d+)", reason):
        return (
            f"{count} instructions cannot fill a vocabulary of {vocabulary} pieces; "
            f"give more of them, or --vocabulary {limit[1]} or less"
        )
    if needed := re.search(r"\d+ vs (\d+)", reason):
        return (
            f"a vocabulary of {vocabulary} pieces cannot hold the 256 bytes and the characters of "
            f"{count} instructions; give --vocabulary {needed[1]} or more"
        )
    return (
        f"SentencePiece cannot train {vocabulary} pieces on {count} instructions: {reason}; "
        "change --vocabulary"
    )


if __name__ == "__main__":
    raise SystemExit(main())
