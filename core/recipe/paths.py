"""Makes the relative paths of a recipe absolute."""

from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from core.recipe.recipe import Choice, Part, Recipe

T = TypeVar("T")


@dataclass(frozen=True)
class RecipePaths:
    """Makes relative paths absolute.

    folder: the recipe's folder; the paths in the recipe are relative to it.
    overridden_keys: keys that the command line has set; their paths are relative to the current
        folder.
    """

    folder: Path
    overridden_keys: set[str]

    def start_of(self, key: str) -> Path:
        """Return the folder to which the path under a key is relative."""
        return Path.cwd() if key in self.overridden_keys else self.folder

    def hub_or_path(self, name: str, key: str) -> str:
        """Return `name` as an absolute path if that path exists, else unchanged as a hub name."""
        path = self.start_of(key) / name
        return str(path.absolute()) if path.exists() else name

    def of_config(self, config: T, section: str, start: Path | None = None) -> T:
        """Return a configuration with absolute paths.

        start: the folder to which each value of type Path is relative; default: the folder that
            `start_of` returns for its key.
        """
        changes: dict[str, Any] = {}
        for f in fields(config):  # type: ignore[arg-type]
            key, value = f"{section}.{f.name}", getattr(config, f.name)
            key_start = start or self.start_of(key)
            if isinstance(value, Path):
                changes[f.name] = key_start / value
            elif isinstance(value, str) and f.metadata.get("located"):
                changes[f.name] = self.hub_or_path(value, key)
            elif isinstance(value, tuple) and any(is_dataclass(entry) for entry in value):
                changes[f.name] = tuple(self.of_config(entry, key, key_start) for entry in value)
        return replace(config, **changes)  # type: ignore[type-var]

    def of_choice(self, choice: "Choice", section: str) -> "Choice":
        """Return a component, for example an environment, with absolute paths in its settings."""
        return replace(choice, config=self.of_config(choice.config, section))

    def of_part(self, part: "Part", section: str) -> "Part":
        """Return a part with absolute paths in its configuration and in `pretrained`."""
        settings = part.settings
        if isinstance(settings.pretrained, str):
            source = self.hub_or_path(settings.pretrained, f"{section}.pretrained")
            settings = replace(settings, pretrained=source)
        return replace(part, config=self.of_config(part.config, section), settings=settings)


def with_absolute_paths(recipe: "Recipe", folder: Path, overridden_keys: set[str]) -> "Recipe":
    """Return the recipe with absolute paths; see `RecipePaths` for the other two arguments."""
    paths = RecipePaths(folder, overridden_keys)
    environment = recipe.environment
    if environment is not None:
        environment = paths.of_choice(environment, "environment")
    return replace(
        recipe,
        data=paths.of_config(recipe.data, "data"),
        start=paths.of_config(recipe.start, "start"),
        optimizer=paths.of_choice(recipe.optimizer, "optimizer"),
        parts={kind: paths.of_part(part, kind) for kind, part in recipe.parts.items()},
        auxiliary={
            label: paths.of_part(part, f"auxiliary.{label}")
            for label, part in recipe.auxiliary.items()
        },
        environment=environment,
    )
