"""In which order the variants of a sweep are tried: all at once, or in rounds of a study."""

from collections.abc import Callable, Iterator

from core.errors import ConfigError, did_you_mean
from core.sweep.config import SearchConfig, SweepConfig
from core.sweep.study import propose
from core.sweep.variants import Variant, base_variants, check_names, draws, with_values

# how good a variant has turned out, higher is better; None if its runs have failed
Goodness = Callable[[Variant], float | None]


def rounds(config: SweepConfig, goodness: Goodness) -> Iterator[list[Variant]]:
    """Yield the variants of each round; those of a study follow the results of the rounds before.

    goodness: called for the variants that were yielded before, when their runs have ended.

    Raises ConfigError if two variants have one name, and if the baseline is none of the first.
    """
    bases = base_variants(config)
    of_rounds = _of_search(bases, config.search, goodness) if config.search else iter([bases])
    first = next(of_rounds)
    check_names(first)
    names = [variant.name for variant in first]
    if config.baseline is not None and config.baseline not in names:
        advice = did_you_mean(config.baseline, names)
        raise ConfigError(f"baseline: no variant is called '{config.baseline}'{advice}")
    yield first
    yield from of_rounds


def _of_search(
    bases: list[Variant], search: SearchConfig, goodness: Goodness
) -> Iterator[list[Variant]]:
    """Yield each of the bases with the values that the search chooses."""
    named = len(bases) > 1
    if search.method == "random":
        yield [with_values(base, values, named) for base in bases for values in draws(search)]
        return
    tried: dict[str, list[Variant]] = {base.name: [] for base in bases}
    for first in range(0, search.trials, search.round):
        numbers = range(first, min(first + search.round, search.trials))
        yield [
            variant
            for base in bases
            for variant in _round_of(base, tried[base.name], search, numbers, goodness, named)
        ]


def _round_of(
    base: Variant,
    tried: list[Variant],
    search: SearchConfig,
    numbers: range,
    goodness: Goodness,
    named: bool,
) -> list[Variant]:
    """Return a round of trials of one base, all different, and add them to those that are tried."""
    known = [(variant.values, goodness(variant)) for variant in tried]
    new: list[Variant] = []
    for number in numbers:
        variant = with_values(base, propose(search, number, known), named)
        # of few choices, one may be made twice; its runs are made once
        if variant not in (*tried, *new):
            new.append(variant)
    tried += new
    return new
