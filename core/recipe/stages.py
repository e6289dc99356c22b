"""Checks that the stages of a recipe name parts and losses that it has."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from core.errors import did_you_mean
from core.recipe.contents import Part
from core.recipe.train_section import StageConfig
from core.registry.hookspecs import ComponentKind


def check_stages(
    stages: Sequence[StageConfig],
    parts: Mapping[ComponentKind, Part],
    auxiliary: Mapping[str, Part],
) -> Iterator[str]:
    """Yield a line for each mistake in the stages.

    parts: {kind: part}, the five parts of the policy.
    auxiliary: {label: auxiliary head}.
    """
    heads = {"policy_head": parts["policy_head"]}
    heads |= {f"auxiliary/{label}": head for label, head in auxiliary.items()}
    known: dict[str, Part] = dict(parts.items()) | heads
    for number, stage in enumerate(stages):
        where = f"train.stages.{number}"
        owners = list(dict.fromkeys(name.partition(".")[0] for name in stage.parts))
        yield from _unknown_names(owners, [*known, "projections"], f"{where}.parts")
        yield from _mistakes_in_modules(stage, where)
        if "projections" in stage.losses:
            yield f"{where}.losses: 'projections' have no loss of their own; drop the name"
        others = [name for name in stage.losses if name != "projections"]
        yield from _unknown_names(others, known, f"{where}.losses")
        for name in owners:
            if name in known and known[name].settings.train is False:
                yield (
                    f"{where}.parts: '{name}' has train = false in its section; drop the key there,"
                    " or the name here"
                )
            elif reason := _why_no_loss_moves(name, stage, heads):
                yield f"{where}.parts: '{name}' cannot train, because {reason}, or drop it here"


def _mistakes_in_modules(stage: StageConfig, where: str) -> Iterator[str]:
    """Yield a line for each module that is named twice, or that `freeze` names in vain."""
    for name in stage.parts:
        if outer := _outer(name, stage.parts):
            yield f"{where}.parts: '{name}' is in '{outer}', which is named, too; drop one of them"
    for name in stage.freeze:
        if name in stage.parts or "." not in name:
            yield f"{where}.freeze: '{name}' would not train at all; drop it in parts and here"
        elif not _outer(name, stage.parts):
            yield f"{where}.freeze: '{name}' is in nothing that parts names, so it rests; drop it"


def _outer(name: str, others: Sequence[str]) -> str | None:
    """Return which of several parts and modules holds a module; None if none does."""
    return next((other for other in others if name.startswith(f"{other}.")), None)


def _unknown_names(named: Sequence[str], known: Collection[str], where: str) -> Iterator[str]:
    for name in named:
        if name not in known:
            yield f"{where}: '{name}' is no part of this recipe{did_you_mean(name, list(known))}"


def _why_no_loss_moves(name: str, stage: StageConfig, heads: Mapping[str, Part]) -> str | None:
    """Return why no loss that counts in a stage moves a part, and a remedy; None: one may move it.

    heads: {name in a stage: head}, all heads of the recipe.
    """
    if not stage.losses:
        return None
    if name in heads:
        is_left_out = name not in stage.losses
        return "losses leaves its loss out; add it there" if is_left_out else None
    counted = [heads.get(loss) for loss in stage.losses]
    if all(head and head.kind_settings and head.kind_settings.insulate for head in counted):
        return "all heads in losses have insulate = true; add a head without it there"
    return None
