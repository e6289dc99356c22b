"""Which package each component of a run comes from, and in which version: RUN/packages.json.

The file lets a run say what to install where a component is missing, and notice other versions.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from core.recipe.contents import Recipe
from core.registry.components import Component
from core.system.files import written_aside
from core.system.strict import parse_json

FILE = "packages.json"


@dataclass(frozen=True)
class Origin:
    """Where a component of a run came from.

    name: the component's name in the recipe.
    package, version: the distribution that registered it.
    earlier: versions with which the run was trained before it was resumed with this one.
    """

    name: str
    package: str
    version: str
    earlier: tuple[str, ...] = ()

    @classmethod
    def of(cls, component: Component) -> "Origin":
        """Return where an installed component comes from."""
        return cls(component.name, component.plugin.distribution, component.plugin.version)

    def __str__(self) -> str:
        earlier = f" (before: {', '.join(self.earlier)})" if self.earlier else ""
        return f"{self.name} of {self.package} {self.version}{earlier}"


def origins_of(recipe: Recipe) -> dict[str, Origin]:
    """Return {section of the recipe: where its component comes from}."""
    components: dict[str, Component] = {kind: part.component for kind, part in recipe.parts.items()}
    for number, head in enumerate(recipe.auxiliary.values()):
        components[f"auxiliary.{number}"] = head.component
    components["optimizer"] = recipe.optimizer.component
    if recipe.environment is not None:
        components["environment"] = recipe.environment.component
    return {section: Origin.of(component) for section, component in components.items()}


def read_origins(run: Path) -> dict[str, Origin]:
    """Return what a run's file says; empty if the run has none, as runs of earlier versions."""
    try:
        plain = parse_json((run / FILE).read_text(encoding="utf-8"))
        return {
            section: Origin(**{**values, "earlier": tuple(values.get("earlier", ()))})
            for section, values in plain.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # without the file a run loses advice, and nothing else


def write_origins(run: Path, recipe: Recipe) -> None:
    """Write the run's file; versions that it said before are kept as earlier ones."""
    before, origins = read_origins(run), origins_of(recipe)
    for section, origin in origins.items():
        old = before.get(section)
        if old is not None and (old.name, old.package) == (origin.name, origin.package):
            versions = dict.fromkeys((*old.earlier, old.version))
            versions.pop(origin.version, None)
            origins[section] = Origin(origin.name, origin.package, origin.version, tuple(versions))
    content = {section: asdict(origin) for section, origin in origins.items()}
    with written_aside(run / FILE) as aside:
        aside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def changed_packages(run: Path, recipe: Recipe) -> Iterator[str]:
    """Yield a line for each package of which another version is installed than the run records."""
    told = set()
    present = origins_of(recipe)
    for section, old in read_origins(run).items():
        new = present.get(section)
        if new is None or new.name != old.name or (new.package, new.version) in told:
            continue
        if (new.package, new.version) != (old.package, old.version):
            told.add((new.package, new.version))
            yield (
                f"{section}: {old.name} was of {old.package} {old.version} when this run last "
                f"trained, and is of {new.package} {new.version} now"
            )


def how_to_install(origin: Origin | None, name: object) -> str:
    """Return the end of a message about a component that is not installed; "" if unknown."""
    if origin is None or origin.name != name:
        return ""
    return (
        f"; this run used '{origin.name}' of {origin.package} {origin.version}: "
        f"pip install {origin.package}=={origin.version}"
    )


def third_party_versions(recipe: Recipe, *, environment: bool) -> dict[str, str]:
    """Return {package: version} of the components that are not Joinery's own.

    environment: of the environment alone if True, otherwise of all other components.
    """
    return {
        origin.package: origin.version
        for section, origin in origins_of(recipe).items()
        if (section == "environment") == environment and origin.package != "joinery"
    }
