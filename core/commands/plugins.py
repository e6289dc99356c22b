"""`joinery plugins`: list every plugin with its origin, version, components and their configuration."""

import argparse
from dataclasses import MISSING

from core.commands.command import command
from core.registry.catalogue import Catalogue, load_plugins
from core.registry.components import KINDS
from core.registry.hookspecs import ComponentKind


@command
def main(argv: list[str] | None = None) -> int:
    """List plugins."""
    parser = argparse.ArgumentParser(
        prog="joinery plugins", description="List plugins, components and their keys."
    )
    parser.add_argument("kind", nargs="?", choices=KINDS, help="only this kind of component")
    arguments = parser.parse_args(argv)
    catalogue = load_plugins()
    for kind in [arguments.kind] if arguments.kind else KINDS:
        _print_kind(kind, catalogue)
    for name, reason in catalogue.failures.items():
        print(f"FAILED  {name} ({reason})")
    return 0


def _print_kind(kind: ComponentKind, catalogue: Catalogue) -> None:
    print(kind)
    for component in catalogue[kind]:
        summary = (component.build.__doc__ or "").strip().partition("\n")[0]
        origin = component.plugin
        print(
            f"  {component.name}  [{origin.name}, {origin.distribution} {origin.version}]  {summary}"
        )
        for parameter in component.parameters:
            required = parameter.default is MISSING
            default = (
                "(required)"
                if required
                else f"= {'unset' if parameter.default is None else parameter.default!r}"
            )
            print(
                f"      {parameter.name}: {parameter.type} {default}\n          {parameter.meaning}"
            )
    print()


if __name__ == "__main__":
    raise SystemExit(main())
