"""`joinery plugins`: list the plugins and their components, with origin, version and settings."""

from argparse import ArgumentTypeError
from dataclasses import MISSING

from rich.console import Console

from core.commands.command import CommandParser, command
from core.errors import did_you_mean
from core.registry.catalogue import Catalogue, load_plugins
from core.registry.components import KINDS
from core.registry.hookspecs import ComponentKind
from core.system.console import output


@command
def main(argv: list[str] | None = None) -> int:
    """List the loaded plugins, and the plugins that could not be loaded."""
    parser = CommandParser(
        "plugins",
        "List plugins, components and their keys.",
        writes="nothing",
    )
    parser.add_argument(
        "kind", metavar="KIND", nargs="?", type=_kind, help=f"one of: {', '.join(KINDS)}"
    )
    arguments = parser.parse(argv)
    console, catalogue = output(), load_plugins()
    for kind in [arguments.kind] if arguments.kind else KINDS:
        _print_kind(kind, catalogue, console)
    for line in catalogue.failure_lines():
        console.print(f"FAILED  {line}")
    return 0


def _kind(text: str) -> str:
    if text not in KINDS:
        raise ArgumentTypeError(f"no kind is called '{text}'{did_you_mean(text, KINDS)}")
    return text


def _print_kind(kind: ComponentKind, catalogue: Catalogue, console: Console) -> None:
    """Print each component of a kind, with its settings: name, type, default and meaning."""
    console.print(kind)
    for component in catalogue[kind]:
        summary = (component.build.__doc__ or "").strip().partition("\n")[0]
        origin = component.plugin
        version = f"{origin.name}, {origin.distribution} {origin.version}"
        console.print(f"  {component.name}  [{version}]  {summary}")
        for parameter in component.parameters:
            if parameter.default is MISSING:
                default = "(required)"
            elif parameter.default is None:
                default = "= unset"
            else:
                default = f"= {parameter.default!r}"
            console.print(f"      {parameter.name}: {parameter.type} {default}")
            print(f"          {parameter.meaning}")
    console.print()


if __name__ == "__main__":
    raise SystemExit(main())
