"""Where a policy's initial weights come from: parts of one model, and a line to read."""

import json
from collections import defaultdict
from collections.abc import Iterator

from torch import nn

from core.contracts.abilities import HasAssumptions, Loadable
from core.errors import ConfigError
from core.policy.adapter_names import name_without_adapters
from core.policy.initial_weights import comes_from_run
from core.policy.policy import Policy
from core.recipe.contents import PARTS, Part, Recipe
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


def check_extra_parameters(policy: Policy, recipe: Recipe) -> None:
    """Raise ConfigError if a frozen part has weights that nobody publishes and that do not train.

    They would stay as they are drawn, beside the pretrained weights of the part.
    """
    mistakes = []
    for kind, part in recipe.parts.items():
        # a run holds all weights of a part
        if comes_from_run(recipe, kind) or not part.settings.keeps_pretrained_weights:
            continue
        module: nn.Module = getattr(policy, kind)
        extra = getattr(module, "extra_parameters", ())
        trains = {
            name_without_adapters(name): weight.requires_grad
            for name, weight in module.named_parameters()
        }
        resting = [name for name in extra if not trains[name]]
        if not resting:
            continue
        names = [name for name in trains if name not in extra]
        adapted = part.settings.train == "lora"
        key, weights = ("lora_train", resting) if adapted else ("freeze", names)
        patterns = list(dict.fromkeys(name.partition(".")[0] for name in weights))
        advice = f"{key} = {json.dumps(patterns)}" + ("" if adapted else " and train = true")
        some = ", ".join(resting[:3]) + (" ..." if len(resting) > 3 else "")
        mistakes.append(
            f"{kind}.train: {some} would keep the initial values, for no published weights hold "
            f"them; let them train: {advice}"
        )
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
    return "initial weights: " + "; ".join(f"{', '.join(n)} {s}" for s, n in names_of.items())
