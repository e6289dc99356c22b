"""`joinery plugins`: list the plugins and their components, with origin, version and settings."""

import argparse
from dataclasses import MISSING

from core.commands.command import command
from core.registry.catalogue import Catalogue, load_plugins
from core.registry.components import KINDS
from core.registry.hookspecs import ComponentKind


@command
def main(argv: list[str] | None = None) -> int:
    """List the loaded plugins, and the plugins that could not be loaded."""
    parser = argparse.ArgumentParser(
        prog="joinery plugins", description="List plugins, components and their keys."
    )
    parser.add_argument("kind", nargs="?", choices=KINDS, help="only this kind of component")
    arguments = parser.parse_args(argv)
    catalogue = load_plugins()
    for kind in [arguments.kind] if arguments.kind else KINDS:
        _print_kind(kind, catalogue)
    for line in catalogue.failure_lines():
        print(f"FAILED  {line}")
    return 0


def _print_kind(kind: ComponentKind, catalogue: Catalogue) -> None:
    """Print each component of a kind, with its settings: name, type, default and meaning."""
    print(kind)
    for component in catalogue[kind]:
        summary = (component.build.__doc__ or "").strip().partition("\n")[0]
        origin = component.plugin
        version = f"{origin.name}, {origin.distribution} {origin.version}"
        print(f"  {component.name}  [{version}]  {summary}")
        for parameter in component.parameters:
            if parameter.default is MISSING:
                default = "(required)"
            elif parameter.default is None:
                default = "= unset"
            else:
                default = f"= {parameter.default!r}"
            print(f"      {parameter.name}: {parameter.type} {default}")
            print(f"          {parameter.meaning}")
    print()


if __name__ == "__main__":
    raise SystemExit(main())
