"""The processor time of a training step under each way of training, relative to joint training."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import tomli_w
import torch

from core.contracts.generator import TRAINING, Generator
from core.loading.opening import open_data
from core.policy.assembly import build_policy
from core.recipe.recipe import load_recipe
from core.registry.catalogue import load_plugins
from core.training.optimizer import build_optimizer
from core.training.stages import StagedTraining
from tests.benchmarks.joint_training.conditions import Condition, recipe_of

ROUNDS = 20
STEPS = 4  # of each condition in a round; a multiple of the steps of alternating stages


class Stepper:
    """Takes training steps under one condition, half of them in each of two stages."""

    def __init__(self, condition: Condition, store: Path, folder: Path) -> None:
        path = folder / f"{condition.key}.toml"
        table = recipe_of(condition, store, seed=0, steps=STEPS, pretrained=folder)
        for section in table.values():
            if isinstance(section, dict):
                section.pop("pretrained", None)  # the values of the weights cost nothing
        path.write_text(tomli_w.dumps(table), encoding="utf-8")
        recipe = load_recipe(path, [], load_plugins())
        torch.manual_seed(0)
        data = open_data(recipe)
        self.policy = build_policy(recipe, data.image_shapes, data.action_spec, data.proprio_dim)
        self.policy.train()
        self.optimizer = build_optimizer(self.policy, recipe)
        self.stages = StagedTraining(self.policy, recipe.train)
        loader, _ = data.loaders(
            self.policy.text_encoder.tokenize, recipe.train.batch_size, torch.device("cpu")
        )
        batches = loader.batches(0, 0, 0, 1)
        self.batch = next(batches)
        batches.close()

    def seconds(self) -> float:
        """Return the processor time of STEPS steps."""
        begin = time.process_time()
        for done in range(STEPS):
            counted = self.stages.enter(done)
            generator = Generator.shared((TRAINING, done), torch.device("cpu"))
            losses = self.policy(self.batch, generator, None, counted).losses
            losses["total"].backward()
            torch.nn.utils.clip_grad_norm_(self.policy.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
        return time.process_time() - begin


def measure_costs(
    conditions: Sequence[Condition], store: Path, folder: Path
) -> Mapping[str, float]:
    """Return {key of the condition: processor time of a step over that of the first condition}.

    All conditions take their steps in turn in one process and in one thread, in the opposite order
    in each second round; the ratio is that of the median times.
    """
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    steppers = {condition.key: Stepper(condition, store, folder) for condition in conditions}
    times: dict[str, list[float]] = {key: [] for key in steppers}
    for number in range(ROUNDS + 1):
        for key in sorted(steppers, reverse=bool(number % 2)):
            seconds = steppers[key].seconds()
            if number:  # the first round fills caches
                times[key].append(seconds)
    medians = {key: median(values) for key, values in times.items()}
    first = medians[conditions[0].key]
    return {key: value / first for key, value in medians.items()}
