"""Freezes weights of a part by name, and finds the modules that must then rest, too."""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from torch import nn

from core.errors import ConfigError, did_you_mean
from core.policy.adapter_names import is_adapter, name_without_adapters


def match_weights(part: nn.Module, patterns: Sequence[str], key: str) -> list[nn.Parameter]:
    """Return the weights of a part whose names match any of the patterns.

    A pattern, in which "*" stands for any text and "[0-3]" for one of several characters, matches a
    weight by its dotted name, by the end of that name from a dot on, or by the name of a module
    that holds the weight. So "norm*" matches all weights of all modules whose names begin with
    "norm", and "blocks.[0-3]" those of the first four blocks.

    Adapters have no names of their own here, and do not change those of other weights.

    key: the key of the recipe that holds the patterns, for messages.

    Raises ConfigError for a pattern that matches no weight.
    """
    weights = {
        name_without_adapters(name): weight
        for name, weight in part.named_parameters()
        if not is_adapter(name)
    }
    matches: dict[str, nn.Parameter] = {}
    for pattern in patterns:
        names = [name for name in weights if _matches(name, pattern)]
        if not names:
            modules = sorted(name for name, _ in part.named_modules() if name)
            children = ", ".join(dict.fromkeys(name.partition(".")[0] for name in weights))
            hint = did_you_mean(pattern, [*modules, *weights])
            hint = hint if "did you mean" in hint else f"; names begin with: {children}"
            raise ConfigError(f"{key}: no weight is called '{pattern}'{hint}")
        matches |= {name: weights[name] for name in names}
    return list(matches.values())


def freeze_weights(part: nn.Module, patterns: Sequence[str], where: str) -> list[nn.Module]:
    """Freeze the weights of a part that match; return the modules without any trainable weight.

    These modules rest: they belong in evaluation mode, without dropout and with the statistics that
    they have.

    where: the part's section, for messages.

    Raises ConfigError for a pattern that matches no weight, and if all weights match.
    """
    for weight in match_weights(part, patterns, f"{where}.freeze"):
        weight.requires_grad_(False)
    if not any(weight.requires_grad for weight in part.parameters()):
        raise ConfigError(f"{where}.freeze: matches all weights; write train = false instead")
    return list(_resting_modules(part))


def modules_with_fixed_statistics(part: nn.Module) -> list[nn.Module]:
    """Return the modules with running statistics, as batch normalisation has, that do not train.

    In training mode, their statistics would change although their weights do not.
    """
    return [
        module
        for module in part.modules()
        if getattr(module, "running_mean", None) is not None
        and not any(weight.requires_grad for weight in module.parameters())
    ]


def _resting_modules(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the largest modules that have weights, none of which trains."""
    weights = list(module.parameters())
    if weights and not any(weight.requires_grad for weight in weights):
        yield module
        return
    for child in module.children():
        yield from _resting_modules(child)


def _matches(name: str, pattern: str) -> bool:
    words = name.split(".")
    ends = (".".join(words[first:]) for first in range(len(words)))
    return any(fnmatchcase(end, pattern) or fnmatchcase(end, f"{pattern}.*") for end in ends)
