"""A trained policy that acts: observations and instructions in, actions in the environment's units
out.

It needs the run's folder, and where published weights did not change, their source; neither data
nor environment.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError

from core.contracts.batch import Batch
from core.environments.environment import Observation
from core.episodes.episode import StoreInfo
from core.episodes.normalization import Normalizer, ProprioNormalizer
from core.errors import CheckpointError, ConfigError, DataError, did_you_mean
from core.loading.training_data import action_spec
from core.policy.assembly import build_policy
from core.policy.policy import EncodedText, Policy, stack_text
from core.policy.state import PolicyState
from core.recipe.recipe import load_recipe
from core.registry.catalogue import load_plugins
from core.weights.checkpoint import Checkpoint, checkpoints, load_weights

INSTRUCTIONS = 256  # whose tokens are remembered


@dataclass(frozen=True)
class Actor:
    """A policy in evaluation mode, between the units of its data and what its network likes.

    info: cameras, features, proprioception and conventions of actions that it was trained on.
    horizon: actions per chunk (H).
    encode: an instruction -> its tokens, encoded once for all its frames; a batch of one.
    checkpoint: where the weights come from.
    embodiment: of the recipe's stores, the number of the one whose normalisers it acts with.
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
        """A state of so many rows, none of which has begun an attempt: `reset` begins one."""
        return self.policy.initial_state(torch.zeros(rows, dtype=torch.int64))

    def reset(self, state: PolicyState, seeds: Mapping[int, int]) -> PolicyState:
        """Let rows begin an attempt: {row: seed}. What a policy that samples does there is a
        function of the seed.
        """
        rows, numbers = torch.zeros_like(state.seed, dtype=torch.bool), state.seed.clone()
        for row, seed in seeds.items():
            rows[row], numbers[row] = True, seed
        return self.policy.reset(state, rows, numbers)

    def step(
        self, observations: Sequence[Observation], instructions: Sequence[str], state: PolicyState
    ) -> tuple[np.ndarray, PolicyState]:
        """B observations and the last state -> chunks (B H A) in units of `info.action`, next
        state.
        """
        with torch.inference_mode():
            batch = self._batch(observations, instructions)
            text = stack_text([self.encode(instruction) for instruction in batch.instructions])
            actions, state = self.policy.act(batch, state, text)
        chunks: np.ndarray = self.action_normalizer.unnormalize(actions.float().cpu().numpy())
        return chunks, state

    def check(self, info: StoreInfo) -> None:
        """Raise ConfigError, one line per difference, where an environment is not what the policy
        was trained on.
        """
        if mistakes := disagreements(self.info, info, "the policy"):
            raise ConfigError(mistakes)

    def _batch(self, observations: Sequence[Observation], instructions: Sequence[str]) -> Batch:
        images = {
            name: np.stack([observation.images[name] for observation in observations])
            for name in self.info.cameras
        }
        batch = Batch(
            images={
                name: torch.from_numpy(frames)[:, None].movedim(-1, 2)
                for name, frames in images.items()
            },
            instructions=instructions,
            text_ids=torch.empty(
                len(observations), 0, dtype=torch.int64
            ),  # they are encoded already
            text_mask=None,
            proprio=self._proprio(observations),
            features={name: self._feature(name, observations) for name in self.info.features},
            embodiment=torch.full((len(observations),), self.embodiment),
        )
        return batch.to(self.device)

    def _feature(self, name: str, observations: Sequence[Observation]) -> torch.Tensor:
        """(B 1 *shape); raises DataError where the environment's `info` promised something else."""
        feature = self.info.features[name]
        arrays = []
        for observation in observations:
            array = observation.features.get(name)
            if array is None or array.shape != feature.shape or array.dtype != feature.dtype:
                found = "nothing" if array is None else f"{array.dtype} {array.shape}"
                raise DataError(
                    f"feature '{name}': the environment shows {found}, its info says {feature}; mend the environment"
                )
            arrays.append(array)
        return torch.from_numpy(np.stack(arrays))[:, None]

    def _proprio(self, observations: Sequence[Observation]) -> torch.Tensor | None:
        """(B 1 P), normalised; None where the policy was trained without."""
        if not self.info.proprio:
            return None
        measured = np.stack([observation.proprio for observation in observations]).astype(
            np.float32
        )
        return torch.from_numpy(self.proprio_normalizer.normalize(measured))[:, None]


def load_actor(
    run: Path,
    checkpoint: Literal["last", "best"] = "last",
    store: str | None = None,
    *,
    exact: bool = False,
) -> Actor:
    """Build a run's policy with a checkpoint's weights: on a GPU, unless the recipe trains on the
    CPU or there is none.

    store: of several stores that it was trained on, the one whose normalisers it acts with; the
    first unless said.
    exact: on the CPU, every weight as it was published or trained, not in the fewer bits in which
    the policy acts. Raises CheckpointError, or ConfigError for a recipe that does not fit the
    plugins installed.
    """
    chosen = choose_checkpoint(run, checkpoint)
    recipe = load_recipe(run / "recipe.toml", [], load_plugins())
    info, actions, proprio = _read_state(chosen, store)
    shapes = {name: (3, camera.height, camera.width) for name, camera in info.cameras.items()}
    policy = build_policy(
        recipe,
        shapes,
        action_spec(actions, recipe.data.window, recipe.action.horizon),
        proprio_dim=len(info.proprio),
        features=info.features,
        embodiments=tuple(chosen.state.get("stores", [""])),
        from_checkpoint=True,
        quantized=not exact,
    )
    if (
        recipe.train.precision == "bf16-true" and not exact
    ):  # it acts in the numbers in which it was trained
        policy.to(torch.bfloat16)
    load_weights(chosen, policy, policy.published)
    device = torch.device("cpu") if exact else _device(recipe.train.accelerator)
    policy.eval().requires_grad_(False).to(device)
    embodiment = list(chosen.state["stores"]).index(store) if store else 0

    def encode(instruction: str) -> EncodedText:
        return policy.encode_text(
            torch.tensor([list(policy.text_encoder.tokenize(instruction))], device=device), None
        )

    make_memory = lru_cache(INSTRUCTIONS)(torch.inference_mode()(encode))
    return Actor(
        policy,
        info,
        recipe.action.horizon,
        actions,
        proprio,
        make_memory,
        chosen,
        device,
        embodiment,
    )


def choose_checkpoint(run: Path, which: Literal["last", "best"]) -> Checkpoint:
    """Return the newest checkpoint of a run, or the best by validation; raises CheckpointError."""
    if not (saved := checkpoints(run)):
        raise CheckpointError(
            f"{run}: holds no checkpoint; name the folder of a run, runs/kosmos_lstm for example"
        )
    return (
        saved[-1]
        if which == "last"
        else min(reversed(saved), key=lambda checkpoint: checkpoint.error)
    )


def disagreements(trained: StoreInfo, world: StoreInfo, learner: str) -> list[str]:
    """Say where an environment differs from what a policy was, or will be, trained on; one line
    each.

    learner: who was trained on it, "the policy" for example. What the environment shows beyond that
    does not matter.
    """
    ours, theirs, shown = trained.action, world.action, list(world.cameras)
    pairs: dict[str, tuple[object, object]] = {
        "fps": (trained.fps, world.fps),
        **{
            f"action.{field.name}": (getattr(ours, field.name), getattr(theirs, field.name))
            for field in fields(ours)
        },
        "proprio": (trained.proprio, world.proprio if trained.proprio else ()),
        **{
            f"camera '{name}'": (trained.cameras[name], world.cameras[name])
            for name in trained.cameras
            if name in shown
        },
        **{
            f"feature '{name}'": (str(feature), str(world.features[name]))
            for name, feature in trained.features.items()
            if name in world.features
        },
    }
    differing = [
        f"{key}: {learner} has {a}, the environment {b}" for key, (a, b) in pairs.items() if a != b
    ]
    return differing + [
        f"{kind} '{name}': {learner} needs it, and the environment has none{did_you_mean(name, known)}"
        for kind, needed, known in (
            ("camera", trained.cameras, shown),
            ("feature", trained.features, list(world.features)),
        )
        for name in needed
        if name not in known
    ]


def _read_state(
    checkpoint: Checkpoint, store: str | None
) -> tuple[StoreInfo, Normalizer, ProprioNormalizer]:
    """What a checkpoint says beside its weights."""
    state = checkpoint.state
    stores = state.get("stores", {})
    if store is not None and store not in stores:
        trained_on = (
            did_you_mean(store, list(stores)) if stores else "; it was trained on one store alone"
        )
        raise ConfigError(
            f"evaluate.store: {checkpoint.folder} knows none called '{store}'{trained_on}"
        )
    try:
        info: dict[str, Any] = {key: state[key] for key in ("fps", "cameras", "proprio")}
        info["action"] = state["action_convention"]
        info["features"] = state.get("features", {})  # policies of before there were any read none
        normalizers = state if store is None else stores[store]
        return (
            TypeAdapter(StoreInfo).validate_python(info),
            Normalizer.from_json(normalizers["action_normalizer"]),
            ProprioNormalizer.from_json(normalizers["proprio_normalizer"]),
        )
    except (KeyError, ValidationError) as error:
        raise CheckpointError(
            f"{checkpoint.folder / 'state.json'}: does not say how to act ({str(error).splitlines()[0]}); "
            "train again with this version"
        ) from None


def _device(accelerator: str) -> torch.device:
    if accelerator in ("auto", "cuda") and torch.cuda.is_available():
        return torch.device("cuda")
    if accelerator in ("auto", "mps") and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")
