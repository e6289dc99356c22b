"""`joinery tokenizer fast RECIPE OUT.json`: fit a FAST tokenizer to a recipe's action chunks."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from core import DataError, command, load_recipe, training_samples
from plugins.heads.tokens.fast_tokenizer import fill_masked, fit

LARGEST_VOCABULARY = 1_000_000
# number of samples that are read at a time
READ = 256


@command
def main(argv: list[str] | None = None) -> int:
    """Fit a tokenizer to the normalised chunks of a recipe's training data, and write it."""
    arguments = _parser().parse_intermixed_args(argv)
    if arguments.out.exists():
        raise DataError(
            f"'{arguments.out}' exists, and trained policies may depend on it; choose another name"
        )
    chunks = read_chunks(arguments.recipe, arguments.settings, arguments.chunks)
    tokenizer = fit(chunks, arguments.scale, arguments.vocabulary)
    try:
        tokenizer.save(arguments.out)
    except OSError as error:
        raise DataError(
            f"cannot write '{arguments.out}': {error.strerror}; choose another place"
        ) from error
    tokens = tokenizer.encode(chunks)
    mean_length = sum(map(len, tokens)) / len(tokens)
    mean_error = abs(tokenizer.decode(tokens) - chunks).mean()
    print(
        f"{arguments.out}: {tokenizer.size} tokens from {len(chunks)} chunks of "
        f"{tokenizer.horizon} x {tokenizer.dim} numbers; a chunk has "
        f"{mean_length:.1f} tokens, at most {tokenizer.longest}, and its numbers "
        f"come back within {mean_error:.2g} on average"
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="joinery tokenizer fast",
        description="Fit a FAST tokenizer to the normalised action chunks of a recipe's training "
        "data.",
        epilog="Writes OUT.json, which policy_head.tokenizer names.",
    )
    parser.add_argument("recipe", type=Path, help="the recipe, which names data and horizon")
    parser.add_argument("out", type=Path, help="the .json file to write")
    parser.add_argument(
        "settings", nargs="*", metavar="section.key=value", help="overrides of the recipe"
    )
    parser.add_argument(
        "--vocabulary",
        type=_whole_number,
        default=1024,
        help="largest number of tokens (default: %(default)s)",
    )
    parser.add_argument(
        "--scale",
        type=_above_zero,
        default=10.0,
        help="steps of the coefficients per unit; more are finer (default: %(default)s)",
    )
    parser.add_argument(
        "--chunks",
        type=_whole_number,
        default=100_000,
        help="read at most so many chunks, evenly spread (default: %(default)s)",
    )
    return parser


def _whole_number(text: str) -> int:
    if not text.isdecimal() or len(text) > 7 or not 1 <= int(text) <= LARGEST_VOCABULARY:
        raise argparse.ArgumentTypeError(
            f"expected a whole number from 1 to {LARGEST_VOCABULARY}, got '{text}'"
        )
    return int(text)


def _above_zero(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above zero, got '{text}'")
    return number


def read_chunks(recipe: Path, settings: Sequence[str], most: int) -> np.ndarray:
    """Return normalised chunks (n H A) of a recipe's training data, at most about `most`.

    They are evenly spread over the data. Masked actions are replaced as in training.

    Raises ConfigError or DataError if the recipe or its data cannot be read, and DataError if every
    action is masked.
    """
    samples = training_samples(load_recipe(recipe, settings))
    window = samples.action_chunks([0])[0].shape[1]
    count = min(len(samples), -(-most // window))
    indices = np.linspace(0, len(samples) - 1, count).astype(int).tolist()
    chunks = []
    for start in range(0, count, READ):
        actions, mask = samples.action_chunks(indices[start : start + READ])
        is_real = mask.any(axis=(2, 3))
        chunks.append(fill_masked(actions, mask)[is_real])
    fitted = np.concatenate(chunks)[:most]
    if not len(fitted):
        raise DataError(f"{recipe}: every action of its data is masked; train on other data")
    return fitted


if __name__ == "__main__":
    raise SystemExit(main())
