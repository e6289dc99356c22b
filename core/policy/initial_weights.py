"""Where the first weights of a policy's parts come from: parts of one model, and a line to read."""

from collections import defaultdict
from collections.abc import Iterator

from core.contracts.abilities import HasAssumptions, Loadable
from core.errors import ConfigError
from core.policy.policy import Policy
from core.recipe.recipe import PARTS, Part, Recipe
from core.registry.hookspecs import ComponentKind


def check_parts_of_one_model(policy: Policy, recipe: Recipe) -> None:
    """Raise ConfigError if some parts of a published model are pretrained and others forgotten.

    Parts are of one model if they name the same source. `pretrained = false` is not forgotten.
    """
    kinds_of: dict[str, list[ComponentKind]] = defaultdict(list)
    for kind in recipe.parts:
        module = getattr(policy, kind)
        begins_with_run = not recipe.start.begins_anew(kind)
        if isinstance(module, Loadable) and module.source is not None and not begins_with_run:
            kinds_of[module.source].append(kind)
    pretrained = {kind: part.settings.pretrained for kind, part in recipe.parts.items()}
    mistakes = [
        f"{kind}.pretrained: unset, and other parts of '{source}' are pretrained; set it, "
        "or, if random weights are meant, write pretrained = false"
        for source, kinds in kinds_of.items()
        if any(pretrained[kind] for kind in kinds)
        for kind in kinds
        if pretrained[kind] is None
    ]
    if mistakes:
        raise ConfigError(mistakes)


def assumptions_of(policy: Policy) -> Iterator[str]:
    """Yield a line for what each part had to assume."""
    for kind in PARTS:
        part = getattr(policy, kind)
        if isinstance(part, HasAssumptions):
            yield from (f"{kind}: {line}" for line in part.assumptions)


def describe_initial_weights(policy: Policy, recipe: Recipe) -> str:
    """Return a line that says which parts begin with which weights."""
    parts: dict[str, Part] = dict(recipe.parts.items())
    parts |= {f"auxiliary/{label}": head for label, head in recipe.auxiliary.items()}
    names_of: dict[str, list[str]] = defaultdict(list)
    for name, part in parts.items():
        source: object = part.settings.pretrained
        if not recipe.start.begins_anew(name.replace("/", ".")):
            source = recipe.start.run
        elif source is True:
            source = policy.get_submodule(name.replace("/", ".")).source
        names_of[f"of {source}" if source else "random"].append(name)
    return "first weights: " + "; ".join(f"{', '.join(n)} {s}" for s, n in names_of.items())
