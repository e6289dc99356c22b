"""`joinery schema`: print the JSON Schema of recipes, for editors that complete and check them."""

import json

from core.commands.command import CommandParser, command


@command
def main(argv: list[str] | None = None) -> int:
    """Print the schema."""
    parser = CommandParser(
        "schema",
        "Print the JSON Schema of recipes.",
        writes="nothing; the schema goes to the standard output",
    )
    parser.parse(argv)

    from core.recipe.schema import recipe_schema
    from core.registry.catalogue import load_plugins
    from core.system.console import output

    output().print(json.dumps(recipe_schema(load_plugins()), indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
