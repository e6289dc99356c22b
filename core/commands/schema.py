"""`joinery schema`: print the JSON Schema of recipes, for editors that complete and check them."""

import argparse
import json

from core.commands.command import command


@command
def main(argv: list[str] | None = None) -> int:
    """Print the schema."""
    parser = argparse.ArgumentParser(
        prog="joinery schema", description="Print the JSON Schema of recipes."
    )
    parser.parse_args(argv)

    from core.recipe.schema import recipe_schema
    from core.registry.catalogue import load_plugins

    print(json.dumps(recipe_schema(load_plugins()), indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
