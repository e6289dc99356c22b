"""The command `joinery`: one word for each module of core/commands, and for those of plugins."""

import sys
from importlib import import_module
from importlib.metadata import entry_points

COMMANDS = {
    "run": ("core.run", "train the policy of a recipe"),
    "plugins": ("core.commands.plugins", "list plugins, components and their configuration"),
    "schema": ("core.commands.schema", "print the JSON Schema of recipes"),
    "evaluate": (
        "core.commands.evaluate",
        "let a trained policy act in an environment and count its successes",
    ),
    "collect": (
        "core.commands.collect",
        "let an environment's expert demonstrate its tasks into a store",
    ),
    "report": ("core.commands.report", "write a run's report, one HTML page"),
    "compare": ("core.commands.compare", "put several runs side by side on one HTML page"),
    "export": ("core.commands.export", "write a policy's weights for transformers or RoboVLMs"),
    "import": ("core.commands.import_", "import episodes of another format into a store"),
    "write": ("core.commands.write", "write a store's episodes as a dataset of another format"),
    "show": (
        "core.commands.show",
        "show what a store holds, what its numbers mean, and what looks wrong",
    ),
    "verify": ("core.commands.verify", "check every checksum of a store, and name what is damaged"),
    "repair": (
        "core.commands.repair",
        "put aside what is damaged in a store, and keep the episodes that are whole",
    ),
}
PLUGIN_COMMANDS = (
    "joinery.commands"  # the entry points by which plugins add commands: name = "module:main"
)


def main(argv: list[str] | None = None) -> int:
    """Dispatch `joinery COMMAND ...` to the command's module."""
    words = sys.argv[1:] if argv is None else argv
    if words and words[0] in COMMANDS:
        return int(import_module(COMMANDS[words[0]][0]).main(words[1:]))
    plugin_commands = entry_points(group=PLUGIN_COMMANDS)
    if words and words[0] in plugin_commands.names:
        return int(plugin_commands[words[0]].load()(words[1:]))
    wants_help = bool(words) and words[0] in ("-h", "--help")
    usage = "\n".join(f"  {name:<10} {meaning}" for name, (_, meaning) in COMMANDS.items())
    usage += "".join(f"\n  {entry.name:<10} by {entry.module}" for entry in plugin_commands)
    print(f"usage: joinery COMMAND ...\n\n{usage}", file=sys.stdout if wants_help else sys.stderr)
    return 0 if wants_help else 2


if __name__ == "__main__":
    raise SystemExit(main())
