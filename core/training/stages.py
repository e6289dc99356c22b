"""Stages of training: which parts train in a step, and whose losses count."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from torch import Tensor, nn

from core.errors import ConfigError, PolicyError, did_you_mean
from core.policy.policy import Policy, owner_of
from core.recipe.train_section import StageConfig, TrainConfig
from core.training.optimizer import modules_of
from core.training.schedule import stage_at


class StagedTraining:
    """Lets the parts and modules of each step's stage train, and all others rest.

    What rests keeps its weights, gets no gradient, and is in evaluation mode: it has no dropout,
    and keeps its running statistics. Without stages, all parts train in every step, except those
    that the recipe freezes.

    policy: a policy whose trainable parameters are those that train in any stage.
    frozen: the parameters that `freeze` names in the present stage.

    Raises ConfigError if a stage names a module that its part lacks, or if nothing that a stage
    names has weights that could train.
    """

    def __init__(self, policy: Policy, train: TrainConfig) -> None:
        self.policy = policy
        self.train = train
        self.frozen = frozenset[nn.Parameter]()
        self._parts = modules_of(policy)
        self._always_frozen = tuple(policy.frozen_parts)
        self._trainable = [p for p in policy.parameters() if p.requires_grad]
        self._current: StageConfig | None = None
        self._terms = frozenset[str]()  # of the current stage's first step; empty before it
        for number, stage in enumerate(train.stages):
            frozen = _parameters(self._find(stage.freeze, f"train.stages.{number}.freeze"))
            chosen = _parameters(self._find(stage.parts, f"train.stages.{number}.parts")) - frozen
            if chosen.isdisjoint(self._trainable):
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
        """Let only what `stage` names train."""
        chosen, frozen = self._find(stage.parts), self._find(stage.freeze)
        resting = [
            module
            for part in self._parts.values()
            for module in _resting(part, chosen, frozen, trains=False)
        ]
        self.policy.frozen_parts = [*self._always_frozen, *resting]
        self.policy.train()
        self.frozen = _parameters(frozen)
        trains = _parameters(chosen) - self.frozen
        for parameter in self._trainable:
            parameter.requires_grad_(parameter in trains)

    def _find(self, names: Sequence[str], key: str = "") -> list[nn.Module]:
        """Return the parts and modules of these names, "policy_head.autoencoder" for example.

        key: the key of the recipe that holds the names, for messages.

        Raises ConfigError if a part has no such module.
        """
        found = []
        for name in names:
            owner, _, path = name.partition(".")
            modules = dict(self._parts[owner].named_modules())
            if path not in modules:
                known = [f"{owner}.{module}" for module in modules if module]
                raise ConfigError(
                    f"{key}: '{owner}' has no module '{path}'{did_you_mean(name, known)}"
                )
            found.append(modules[path])
        return found


def _parameters(modules: Collection[nn.Module]) -> frozenset[nn.Parameter]:
    return frozenset(parameter for module in modules for parameter in module.parameters())


def _resting(
    module: nn.Module,
    chosen: Collection[nn.Module],
    frozen: Collection[nn.Module],
    *,
    trains: bool,
) -> Iterator[nn.Module]:
    """Yield the largest modules in which nothing trains.

    chosen: the modules that train. frozen: those in them that rest nonetheless.
    trains: whether a module around this one trains.
    """
    trains = module in chosen or (trains and module not in frozen)
    if not trains and not any(inner in chosen for inner in module.modules()):
        yield module
        return
    for child in module.children():
        yield from _resting(child, chosen, frozen, trains=trains)
