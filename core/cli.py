"""The program `joinery`: `joinery NAME ...` calls `main` of the module that COMMANDS[NAME] names.

`joinery import`, for example, begins in core/commands/import_.py. Plugins can add commands.
"""

import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points, version
from platform import python_version
from shutil import get_terminal_size
from textwrap import fill

from core.commands.command import command
from core.errors import ConfigError, PluginError, did_you_mean

# {command: (the module whose `main` runs the command, what the command does)}
COMMANDS = {
    "run": ("core.run", "train the policy of a recipe"),
    "sweep": (
        "core.commands.sweep",
        "train variants of recipes with several seeds, and compare them",
    ),
    "plugins": ("core.commands.plugins", "list plugins, components and their configuration"),
    "schema": ("core.commands.schema", "print the JSON Schema of recipes"),
    "evaluate": (
        "core.commands.evaluate",
        "let a trained policy act in an environment and count its successes",
    ),
    "validate": (
        "core.commands.validate",
        "compare the actions that a policy predicts with those of any store",
    ),
    "collect": (
        "core.commands.collect",
        "let an environment's expert demonstrate its tasks into a store",
    ),
    "report": ("core.commands.report", "write a run's report, one HTML page"),
    "compare": ("core.commands.compare", "put several runs side by side on one HTML page"),
    "export": ("core.commands.export", "write a policy's weights for transformers or RoboVLMs"),
    # The file is called import_.py, because `import` is a keyword of Python.
    "import": ("core.commands.import_", "import episodes of another format into a store"),
    "write": ("core.commands.write", "write a store's episodes as a dataset of another format"),
    "show": (
        "core.commands.show",
        "show what a store holds, what its numbers mean, and what looks wrong",
    ),
    "edit": (
        "core.commands.edit",
        "correct what a store says about its numbers, instructions and tasks",
    ),
    "verify": ("core.commands.verify", "check every checksum of a store, and name what is damaged"),
    "repair": (
        "core.commands.repair",
        "put aside what is damaged in a store, and keep the episodes that are whole",
    ),
}
# Plugins add commands as entry points of this group: name = "module:main".
PLUGIN_COMMANDS = "joinery.commands"


@command
def main(argv: list[str] | None = None) -> int:
    """Call the command that the first word names, or print the list of commands."""
    words = sys.argv[1:] if argv is None else argv
    name = words[0] if words else None
    if name in COMMANDS:
        module, _ = COMMANDS[name]
        return int(import_module(module).main(words[1:]))
    plugin_commands = entry_points(group=PLUGIN_COMMANDS)
    if name in plugin_commands.names:
        return _run_plugin_command(plugin_commands[name], words[1:])
    if name == "--version":
        print(_versions())
        return 0
    meanings = {name: meaning for name, (_, meaning) in COMMANDS.items()}
    for entry in plugin_commands:  # a built-in command cannot be replaced
        meanings.setdefault(entry.name, f"by {entry.module}")
    if name in ("-h", "--help"):
        print(_usage(meanings))
        return 0
    print(_usage(meanings), file=sys.stderr)
    if name is not None:
        advice = did_you_mean(name, [*meanings, "--help", "--version"]).partition("; known")[0]
        raise ConfigError(f"no command is called '{name}'{advice}")
    return 2


def _usage(meanings: Mapping[str, str]) -> str:
    """Return the list of commands, as wide as the terminal.

    meanings: {command: what it does}.
    """
    usage = "usage: joinery COMMAND ...; `joinery COMMAND --help` describes a command"
    width = max(30, get_terminal_size().columns)
    lines = [fill(usage, width, subsequent_indent="  "), ""]
    for name, meaning in {**meanings, "--version": "print the versions in use"}.items():
        lines.append(fill(f"  {name:<10} {meaning}", width, subsequent_indent=" " * 13))
    return "\n".join(lines)


def _versions() -> str:
    """Return the versions of Joinery, Python and PyTorch; the latter is not imported for that."""
    return f"joinery {version('joinery')}, Python {python_version()}, torch {version('torch')}"


def _run_plugin_command(entry: EntryPoint, arguments: list[str]) -> int:
    """Run a command of a plugin; its errors are shown like the errors of built-in commands."""
    from core.system.tracebacks import error_in_one_line

    def run(arguments: list[str]) -> int:
        try:
            exit_code = command(entry.load())(arguments)
        # a third party's module may fail in any way
        except Exception as error:
            package = f" of {entry.dist.name} {entry.dist.version}" if entry.dist else ""
            line = error_in_one_line(error, entry.module.partition(".")[0])
            raise PluginError(f"command '{entry.name}'{package}: {line}") from error
        return exit_code if isinstance(exit_code, int) else 0

    return command(run)(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
