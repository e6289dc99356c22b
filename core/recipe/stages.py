"""Checks that the stages of a recipe name parts and losses that it has."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from core.errors import did_you_mean
from core.recipe.sections import StageConfig
from core.registry.hookspecs import ComponentKind

if TYPE_CHECKING:
    from core.recipe.recipe import Part


def check_stages(
    stages: Sequence[StageConfig],
    parts: Mapping[ComponentKind, "Part"],
    auxiliary: Mapping[str, "Part"],
) -> Iterator[str]:
    """Yield a line for each mistake in the stages.

    parts: {kind: part}, without the parts whose sections have mistakes.
    auxiliary: {label: auxiliary head}.
    """
    heads = ["policy_head", *(f"auxiliary/{label}" for label in auxiliary)]
    names = list(dict.fromkeys([*parts, "projections", *heads]))
    frozen = [kind for kind, part in parts.items() if part.settings.train is False]
    for number, stage in enumerate(stages):
        where = f"train.stages.{number}"
        yield from _unknown_names(stage.parts, names, f"{where}.parts")
        yield from _unknown_names(stage.losses, names, f"{where}.losses")
        for name in stage.parts:
            if name in frozen:
                yield (
                    f"{where}.parts: '{name}' has train = false in its section; drop the key there,"
                    " or the name here"
                )
            if name in heads and stage.losses and name not in stage.losses:
                yield (
                    f"{where}.parts: '{name}' cannot train, because losses leaves its loss out; "
                    "add it there, or drop it here"
                )


def _unknown_names(named: Sequence[str], known: Collection[str], where: str) -> Iterator[str]:
    for name in named:
        if name not in known:
            yield f"{where}: '{name}' is no part of this recipe{did_you_mean(name, list(known))}"
