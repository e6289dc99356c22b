"""Stages of training: which parts train in a step, and whose losses count."""

from collections.abc import Mapping

from torch import Tensor

from core.errors import ConfigError, PolicyError
from core.policy.policy import Policy, owner_of
from core.recipe.train_section import StageConfig, TrainConfig
from core.training.optimizer import modules_of
from core.training.schedule import stage_at


class StagedTraining:
    """Lets the parts of each step's stage train, and all other parts rest.

    A part that rests keeps its weights, gets no gradient, and has no dropout. Without stages, all
    parts train in every step, except those that the recipe freezes.

    policy: a policy whose trainable parameters are those that train in any stage.

    Raises ConfigError if the parts of a stage have no weights that could train.
    """

    def __init__(self, policy: Policy, train: TrainConfig) -> None:
        self.policy = policy
        self.train = train
        self._modules = {name.replace(" ", "/"): part for name, part in modules_of(policy).items()}
        self._always_frozen = tuple(policy.frozen_parts)
        self._trainable = {
            name: [p for p in module.parameters() if p.requires_grad]
            for name, module in self._modules.items()
        }
        self._current: StageConfig | None = None
        self._terms = frozenset[str]()  # of the current stage's first step; empty before it
        for number, stage in enumerate(train.stages):
            if not any(self._trainable[name] for name in stage.parts):
                raise ConfigError(
                    f"train.stages.{number}.parts: without weights in this recipe: "
                    f"{', '.join(stage.parts)}; name another part, too"
                )

    def enter(self, done: int) -> tuple[str, ...]:
        """Let the parts of the stage that follows `done` steps train; return whose losses count.

        An empty result means that all losses count.
        """
        if not self.train.stages:
            return ()
        stage = self.train.stages[stage_at(done, self.train)[0]]
        if stage != self._current:
            self._let_train(stage)
            self._current, self._terms = stage, frozenset()
        return stage.losses

    def check(self, done: int, losses: Mapping[str, Tensor]) -> None:
        """Check the terms of the loss of the step after `done` steps.

        Raises ConfigError if they move no part, and PolicyError if they are not those of the
        stage's steps before: a term that comes and goes would leave its weights without a gradient
        in some processes, which several processes cannot exchange.
        """
        if not losses["total"].requires_grad:
            raise ConfigError(self._moves_nothing(done))
        terms = frozenset(losses)
        self._terms = self._terms or terms
        for change, names in (("new", terms - self._terms), ("missing", self._terms - terms)):
            if names:
                term = min(names)
                part = self.policy.boundary.name(owner_of(term))
                raise PolicyError(
                    f"{part}: step {done + 1}: the term '{term}' of the loss is {change}; "
                    "mend the plugin: return the same terms at every step, and 0 * output.sum() "
                    "where there is nothing to learn"
                )

    def _moves_nothing(self, done: int) -> str:
        """Say that no part learns from the losses of the step after `done` steps."""
        if not self.train.stages:
            return "train: the losses move no part; let a part train, or mend the policy head"
        number, _ = stage_at(done, self.train)
        return (
            f"train.stages.{number}: the losses that count move none of its parts "
            f"({', '.join(self.train.stages[number].parts)}); change losses or parts"
        )

    def _let_train(self, stage: StageConfig) -> None:
        """Let only the parts of `stage` train."""
        resting = [module for name, module in self._modules.items() if name not in stage.parts]
        self.policy.frozen_parts = [*self._always_frozen, *resting]
        self.policy.train()
        for name, parameters in self._trainable.items():
            for parameter in parameters:
                parameter.requires_grad_(name in stage.parts)
