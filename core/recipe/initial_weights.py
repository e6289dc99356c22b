"""Checks that no part keeps random weights only because the recipe forgot `pretrained`."""

from collections.abc import Iterator, Mapping, Sequence

from core.recipe.contents import Part
from core.recipe.start import StartConfig
from core.recipe.train_section import StageConfig
from core.registry.hookspecs import ComponentKind
from core.registry.part_settings import PartSettings

ADVICE = (
    "name where its weights come from, or, if random weights are meant, write pretrained = false"
)


def check_initial_weights(
    stages: Sequence[StageConfig],
    parts: Mapping[ComponentKind, Part],
    auxiliary: Mapping[str, Part],
    start: StartConfig | None = None,
) -> Iterator[str]:
    """Yield a line for each part whose initial weights stay and whose section has no `pretrained`.

    parts: {kind: part}, the five parts of the policy.
    auxiliary: {label: auxiliary head}.
    start: the run that parts without `pretrained` begin with, if any.
    """
    start = start or StartConfig()
    trained_in_stages = {name for stage in stages for name in stage.parts}
    named = dict(parts.items()) | {f"auxiliary/{label}": head for label, head in auxiliary.items()}
    for name, part in named.items():
        begins_with_run = not start.begins_anew(name.replace("/", "."))
        if part.settings.pretrained is not None or begins_with_run:
            continue
        rests = bool(stages) and name not in trained_in_stages
        reason = "no stage names the part, which" if rests else _why_weights_stay(part.settings)
        if reason:
            yield f"{name}.pretrained: unset, and {reason} would keep random weights; {ADVICE}"


def _why_weights_stay(settings: PartSettings) -> str:
    """Return which key keeps initial weights of a part throughout training; "" if none does."""
    if settings.train is False:
        return "train = false"
    if settings.train == "lora":
        return 'train = "lora"'
    return "freeze" if settings.freeze else ""
