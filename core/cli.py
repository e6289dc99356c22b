"""The command `joinery`: one word for each `python -m core.*` module, and how a mistake is shown."""

import sys
from argparse import ArgumentTypeError
from collections.abc import Callable
from functools import wraps
from importlib import import_module

from core.errors import JoineryError

COMMANDS = {
    "run": ("core.run", "train the policy of a recipe"),
    "plugins": ("core.plugins", "list plugins, components and their configuration"),
    "schema": ("core.schema", "print the JSON Schema of recipes"),
    "evaluate": ("core.rollout.evaluate", "let a trained policy act in an environment and count its successes"),
    "collect": ("core.rollout.collect", "let an environment's expert demonstrate its tasks into a store"),
    "report": ("core.report.report", "write a run's report, one HTML page"),
    "compare": ("core.report.compare", "put several runs side by side on one HTML page"),
    "export": ("core.export", "write a policy's weights for transformers or RoboVLMs"),
    "import": ("core.data.convert", "import episodes of another format into a store"),
    "write": ("core.data.write", "write a store's episodes as a dataset of another format"),
    "show": ("core.report.show", "show what a store holds, what its numbers mean, and what looks wrong"),
    "verify": ("core.data.verify", "check every checksum of a store, and name what is damaged"),
    "repair": ("core.data.repair", "put aside what is damaged in a store, and keep the episodes that are whole"),
    "tokenizer": ("core.data.tokenizer", "train a SentencePiece model on instructions"),
}
Main = Callable[..., int]


def command(main: Main) -> Main:
    """Let a command end with one line per mistake on stderr and an exit code, never with a traceback."""

    @wraps(main)
    def wrapped(argv: list[str] | None = None) -> int:
        try:
            return main(argv)
        except JoineryError as error:
            print("\n".join(f"error: {line}" for line in str(error).splitlines()), file=sys.stderr)
            return error.exit_code
        except BrokenPipeError:
            return 0  # the reader of our output has seen enough
        except OSError as error:
            print(f"error: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130

    return wrapped


def positive(text: str) -> int:
    """Read a whole number above zero, as the type of an argument."""
    if not text.isdecimal() or int(text) == 0:
        raise ArgumentTypeError(f"expected a whole number above zero, got '{text}'")
    return int(text)


def main(argv: list[str] | None = None) -> int:
    """Dispatch `joinery COMMAND ...` to the command's module."""
    words = sys.argv[1:] if argv is None else argv
    if words and words[0] in COMMANDS:
        return int(import_module(COMMANDS[words[0]][0]).main(words[1:]))
    wants_help = bool(words) and words[0] in ("-h", "--help")
    usage = "\n".join(f"  {name:<10} {meaning}" for name, (_, meaning) in COMMANDS.items())
    print(f"usage: joinery COMMAND ...\n\n{usage}", file=sys.stdout if wants_help else sys.stderr)
    return 0 if wants_help else 2


if __name__ == "__main__":
    raise SystemExit(main())
