"""Chooses the next values of a search from the results so far, by Optuna.

Optuna keeps no record here: a study is made anew from the results each time. So a choice depends on
them and on its number alone, and a sweep that was killed chooses what it would have chosen.
"""

from collections.abc import Sequence
from typing import Any

from core.sweep.config import Range, SearchConfig
from core.sweep.variants import Values, rounded
from core.system.optional_imports import import_optional


def propose(
    search: SearchConfig, number: int, known: Sequence[tuple[Values, float | None]]
) -> Values:
    """Return the values of a trial, by a tree-structured Parzen estimator (Bergstra et al. 2011).

    number: of the trial, from 0.
    known: values of earlier trials, each with its result, higher is better; None: its runs have
        failed.

    Raises ConfigError if Optuna is not installed.
    """
    optuna = import_optional("optuna", "optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {key: _distribution(optuna, r) for key, r in search.ranges.items()}
    study = optuna.create_study(
        direction="maximize",
        # a study that is made anew would otherwise begin with the same random numbers
        sampler=optuna.samplers.TPESampler(seed=(search.seed * 1_000_003 + number) % 2**32),
    )
    states = optuna.trial.TrialState
    for values, result in known:
        study.add_trial(
            optuna.trial.create_trial(
                params={key: _plain(key, value, search) for key, value in values.items()},
                distributions=distributions,
                value=result,
                state=states.FAIL if result is None else states.COMPLETE,
            )
        )
    chosen = study.ask(distributions).params
    return {key: _value(chosen[key], choices) for key, choices in search.ranges.items()}


def _distribution(optuna: Any, choices: Range | tuple[Any, ...]) -> Any:
    if not isinstance(choices, Range):
        # of any kind, so Optuna gets their positions
        return optuna.distributions.CategoricalDistribution(range(len(choices)))
    kind = "IntDistribution" if choices.is_whole else "FloatDistribution"
    return getattr(optuna.distributions, kind)(choices.low, choices.high, log=choices.log)


def _plain(key: str, value: Any, search: SearchConfig) -> Any:
    choices = search.ranges[key]
    return value if isinstance(choices, Range) else choices.index(value)


def _value(chosen: Any, choices: Range | tuple[Any, ...]) -> Any:
    return rounded(chosen, choices) if isinstance(choices, Range) else choices[chosen]
