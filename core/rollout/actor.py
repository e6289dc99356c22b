"""A trained policy that acts: it turns observations and instructions into actions.

Loading the policy needs the run's folder, but neither the data nor the environment. Pretrained
weights that training left unchanged are read from their source.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from core.environments.environment import Observation
from core.episodes.episode import StoreInfo
from core.episodes.normalization import Normalizer, ProprioNormalizer
from core.episodes.units import different_units, known_units
from core.errors import ConfigError, DataError, PolicyError, did_you_mean
from core.policy.assembly import restore_policy
from core.policy.encoded import EncodedText, stack_text
from core.policy.policy import Policy
from core.policy.state import PolicyState
from core.policy.trained_state import read_state
from core.recipe.recipe import load_acting_recipe
from core.registry.catalogue import load_plugins
from core.rollout.observations import batch_of, raise_unless_fit
from core.weights.checkpoint import Checkpoint, choose_checkpoint

CACHED_INSTRUCTIONS = 256


@dataclass(frozen=True)
class Actor:
    """A policy in evaluation mode, and normalisers between its units and those of the dataset.

    info: cameras, features, proprioception and action convention of the training data.
    horizon: actions per chunk (H).
    encode: returns the encoded tokens of an instruction, as a batch of one; results are cached.
    checkpoint: where the weights come from.
    embodiment: index, among the recipe's stores, of the store whose normalisers are used.
    """

    policy: Policy
    info: StoreInfo
    horizon: int
    action_normalizer: Normalizer
    proprio_normalizer: ProprioNormalizer
    encode: Callable[[str], EncodedText]
    checkpoint: Checkpoint
    device: torch.device
    embodiment: int = 0

    def start(self, rows: int) -> PolicyState:
        """Return a state for `rows` rows; call `reset` to begin an attempt in a row."""
        return self.policy.initial_state(torch.zeros(rows, dtype=torch.int64))

    def reset(self, state: PolicyState, seeds: Mapping[int, int]) -> PolicyState:
        """Begin attempts in some rows: empty their memory; the memory of other rows is kept.

        seeds: {row: seed of the row's random draws}.
        """
        rows, row_seeds = torch.zeros_like(state.seed, dtype=torch.bool), state.seed.clone()
        for row, seed in seeds.items():
            rows[row], row_seeds[row] = True, seed
        return self.policy.reset(state, rows, row_seeds)

    def forget(self, state: PolicyState, rows: Sequence[int]) -> PolicyState:
        """Empty the memory of some rows; their random draws go on as if nothing had happened."""
        chosen = torch.zeros_like(state.seed, dtype=torch.bool)
        chosen[list(rows)] = True
        emptied = self.policy.reset(state, chosen, state.seed)
        return replace(emptied, step=state.step)

    def step(
        self, observations: Sequence[Observation], instructions: Sequence[str], state: PolicyState
    ) -> tuple[np.ndarray, PolicyState]:
        """Return action chunks (B H A) in units of `info.action`, and the next state.

        There are B observations and B instructions, one for each row. Raises DataError, with a line
        for each difference, if an observation is not as in the training data; PolicyError if an
        action is not finite, so that no robot executes it.
        """
        chunks, faults, state = self.step_rows(observations, instructions, state)
        if faults:
            raise PolicyError(next(iter(faults.values())))
        return chunks, state

    def step_rows(
        self, observations: Sequence[Observation], instructions: Sequence[str], state: PolicyState
    ) -> tuple[np.ndarray, dict[int, str], PolicyState]:
        """Do what `step` does, but return {row: why none of its actions may be executed}, too.

        The other rows are as if that row were not there. Raises what `step` raises, except for
        actions that are not finite.
        """
        raise_unless_fit(observations, instructions, self.info)
        if (rows := len(getattr(state, "seed", ()))) != len(observations):
            raise DataError(
                f"{len(observations)} observations, and a state of {rows} rows; begin with "
                f"start({len(observations)})"
            )
        with torch.inference_mode():
            batch = batch_of(
                observations,
                instructions,
                self.info,
                self.action_normalizer,
                self.proprio_normalizer,
                self.embodiment,
            ).to(self.device)
            text = stack_text([self.encode(instruction) for instruction in instructions])
            actions, state = self.policy.act(batch, state, text)
        normalized = actions.float().cpu().numpy()
        with np.errstate(over="ignore", invalid="ignore"):
            chunks: np.ndarray = self.action_normalizer.unnormalize(normalized)
        # Both are looked at. In the robot's units, a gripper's NaN is gone, since it counts as
        # closed; and a finite number may be too large for these units.
        is_broken = ~np.isfinite(normalized) | ~np.isfinite(chunks)
        return chunks, self._faults(is_broken, instructions), state

    def check(self, info: StoreInfo) -> None:
        """Raise ConfigError if an environment differs from the policy's training data.

        The error has one line for each difference, and one on other names if they may be the cause.
        """
        if mistakes := disagreements(self.info, info, "the policy"):
            raise ConfigError([*mistakes, *renaming_hint(self.info, info)])

    def _faults(self, is_broken: np.ndarray, instructions: Sequence[str]) -> dict[int, str]:
        """Return {row: message} of the rows of which any number (B H A) is not finite."""
        head = self.policy.boundary.name("policy_head")
        remedy = (
            f"no action is given out; choose another checkpoint than {self.checkpoint.folder}, "
            "or mend the plugin"
        )
        return {
            row: f"{head}: act returned NaN or infinity, in {is_broken[row].sum()} of "
            f"{is_broken[row].size} numbers for '{instructions[row]}'; {remedy}"
            for row in np.flatnonzero(is_broken.any(axis=(1, 2))).tolist()
        }


def load_actor(
    run: Path,
    checkpoint: Literal["last", "best"] | int = "last",
    store: str | None = None,
    *,
    exact: bool = False,
    moved: Mapping[str, str] | None = None,
) -> Actor:
    """Build the policy of a run with a checkpoint's weights, for acting.

    The policy acts on a GPU, unless there is none, the recipe trains on the CPU, or `exact` is set.

    checkpoint: "last", "best" (by validation error), or the step after which it was saved.
    store: label of the store whose normalisers are used; default: the first store of the recipe.
    exact: load every weight on the CPU at full precision, neither quantised nor in bfloat16.
    moved: {former place of a file or folder that the recipe names: its place now}.

    Raises CheckpointError, and ConfigError if the recipe does not fit the installed plugins.
    """
    source = choose_checkpoint(run, checkpoint)
    info, action_normalizer, proprio_normalizer = read_state(source, store)
    recipe = load_acting_recipe(run, load_plugins(), moved)
    policy = restore_policy(recipe, source, exact=exact, moved=moved)
    device = torch.device("cpu") if exact else _device(recipe.train.accelerator)
    policy.eval().requires_grad_(False).to(device)
    embodiment = list(source.state["stores"]).index(store) if store else 0

    @lru_cache(CACHED_INSTRUCTIONS)
    @torch.inference_mode()
    def encode(instruction: str) -> EncodedText:
        token_ids = torch.tensor([list(policy.text_encoder.tokenize(instruction))], device=device)
        return policy.encode_text(token_ids, None)

    return Actor(
        policy,
        info,
        recipe.action.horizon,
        action_normalizer,
        proprio_normalizer,
        encode,
        source,
        device,
        embodiment,
    )


def disagreements(
    trained: StoreInfo, environment: StoreInfo, learner: str, source: str = "the environment"
) -> list[str]:
    """Return a line for each difference between an environment, or a store, and the training data.

    trained: info of the data on which a policy was or will be trained.
    environment: info of the environment or store.
    learner: what the returned lines call the source of `trained`, "the policy" for example.
    source: what the returned lines call the source of `environment`.

    Cameras and features that only the environment has do not matter. If `trained` has no
    proprioception, the environment's proprioception does not matter.
    """
    pairs: dict[str, tuple[object, object]] = {"fps": (trained.fps, environment.fps)}
    for key in (field.name for field in fields(trained.action) if field.name != "units"):
        pairs[f"action.{key}"] = getattr(trained.action, key), getattr(environment.action, key)
    pairs["proprio"] = trained.proprio, environment.proprio if trained.proprio else ()
    units, others = known_units(trained), known_units(environment)
    for name in different_units(units, others):
        pairs[f"unit of {name}"] = units[name], others[name]
    for name, camera in trained.cameras.items():
        if name in environment.cameras:
            pairs[f"camera '{name}'"] = camera, environment.cameras[name]
    for name, feature in trained.features.items():
        if name in environment.features:
            pairs[f"feature '{name}'"] = str(feature), str(environment.features[name])
    lines = [
        f"{key}: {learner} has {expected}, {source} {actual}"
        for key, (expected, actual) in pairs.items()
        if expected != actual
    ]
    for kind, needed, available in (
        ("camera", trained.cameras, list(environment.cameras)),
        ("feature", trained.features, list(environment.features)),
    ):
        lines += [
            f"{kind} '{name}': {learner} needs it, and {source} has none"
            f"{did_you_mean(name, available)}"
            for name in needed
            if name not in available
        ]
    return lines


def renaming_hint(trained: StoreInfo, environment: StoreInfo) -> list[str]:
    """Return a line on how to rename what an environment calls otherwise; none if there is nothing.

    trained, environment: as for `disagreements`.
    """
    present = {
        "cameras": (list(trained.cameras), list(environment.cameras)),
        "features": (list(trained.features), list(environment.features)),
        "proprio": (trained.proprio, environment.proprio),
        "actions": (trained.action.names, environment.action.names),
    }
    for key, (needed, available) in present.items():
        missing = [name for name in needed if name not in available]
        spare = [name for name in available if name not in needed]
        if missing and spare:
            return [
                f"if the environment has '{missing[0]}' under another name, say so: "
                f'evaluate.{key} = {{{missing[0]} = "{spare[0]}"}}, for example'
            ]
    return []


def _device(accelerator: str) -> torch.device:
    if accelerator in ("auto", "cuda") and torch.cuda.is_available():
        return torch.device("cuda")
    if accelerator in ("auto", "mps") and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")
