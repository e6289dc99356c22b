"""A trained policy that acts: observations and instructions in, actions in the environment's units out.

It needs the run's folder, and where published weights did not change, their source; neither data nor environment.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError

from core.contracts import Batch
from core.data.buffers import pad
from core.data.contracts import StoreInfo
from core.data.normalization import Normalizer, ProprioNormalizer
from core.errors import CheckpointError, DataError, RecipeError, did_you_mean
from core.plugins import load_plugins
from core.policy import Policy, PolicyState, build_policy
from core.recipe import load_recipe
from core.rollout.contracts import Observation
from core.training.checkpoint import Checkpoint, checkpoints, load_weights

INSTRUCTIONS = 4096  # of which the token ids are remembered


@dataclass(frozen=True)
class Actor:
    """A policy in evaluation mode, between the units of its data and what its network likes.

    info: cameras, features, proprioception and conventions of actions that it was trained on.
    horizon: actions per chunk (H).
    tokenize: an instruction -> its token ids (N).
    checkpoint: where the weights come from.
    embodiment: of the recipe's stores, the number of the one whose normalisers it acts with.
    """

    policy: Policy
    info: StoreInfo
    horizon: int
    action_normalizer: Normalizer
    proprio_normalizer: ProprioNormalizer
    tokenize: Callable[[str], np.ndarray]
    checkpoint: Checkpoint
    device: torch.device
    embodiment: int = 0

    def step(
        self, observations: Sequence[Observation], instructions: Sequence[str], state: PolicyState | None
    ) -> tuple[np.ndarray, PolicyState]:
        """B observations and the last state (None at reset) -> chunks (B H A) in units of `info.action`, next state."""
        with torch.inference_mode():
            actions, state = self.policy.step(self._batch(observations, instructions), state)
        chunks: np.ndarray = self.action_normalizer.unnormalize(actions.float().cpu().numpy())
        return chunks, state

    def check(self, info: StoreInfo) -> None:
        """Raise RecipeError, one line per difference, where an environment is not what the policy was trained on."""
        if mistakes := disagreements(self.info, info, "the policy"):
            raise RecipeError(mistakes)

    def _batch(self, observations: Sequence[Observation], instructions: Sequence[str]) -> Batch:
        images = {name: np.stack([seen.images[name] for seen in observations]) for name in self.info.cameras}
        text_ids, text_mask = pad([self.tokenize(instruction) for instruction in instructions])
        batch = Batch(
            images={name: torch.from_numpy(frames)[:, None].movedim(-1, 2) for name, frames in images.items()},
            instructions=instructions,
            text_ids=text_ids,
            text_mask=text_mask,
            proprio=self._proprio(observations),
            features={name: self._feature(name, observations) for name in self.info.features},
            embodiment=torch.full((len(observations),), self.embodiment),
        )
        return batch.to(self.device)

    def _feature(self, name: str, observations: Sequence[Observation]) -> torch.Tensor:
        """(B 1 *shape); raises DataError where the environment's `info` promised something else."""
        frames, feature = (
            np.stack([observation.features[name] for observation in observations]),
            self.info.features[name],
        )
        if frames.shape[1:] != feature.shape or frames.dtype != feature.dtype:
            found = f"{frames.dtype} {frames.shape[1:]}"
            raise DataError(
                f"feature '{name}': the environment shows {found}, its info says {feature}; mend the environment"
            )
        return torch.from_numpy(frames)[:, None]

    def _proprio(self, observations: Sequence[Observation]) -> torch.Tensor | None:
        """(B 1 P), normalised; None where the policy was trained without."""
        if not self.info.proprio:
            return None
        measured = np.stack([seen.proprio for seen in observations]).astype(np.float32)
        return torch.from_numpy(self.proprio_normalizer.normalize(measured))[:, None]


def load_actor(
    run: Path, checkpoint: Literal["last", "best"] = "last", store: str | None = None, *, exact: bool = False
) -> Actor:
    """Build a run's policy with a checkpoint's weights: on a GPU, unless the recipe trains on the CPU or there is none.

    store: of several stores that it was trained on, the one whose normalisers it acts with; the first unless said.
    exact: on the CPU, every weight as it was published or trained, not in the fewer bits in which the policy acts.
    Raises CheckpointError, or RecipeError for a recipe that does not fit the plugins installed.
    """
    chosen = choose_checkpoint(run, checkpoint)
    recipe = load_recipe(run / "recipe.toml", [], load_plugins())
    info, actions, proprio = _read_state(chosen, store)
    shapes = {name: (3, camera.height, camera.width) for name, camera in info.cameras.items()}
    policy = build_policy(
        recipe,
        shapes,
        actions.spec(recipe.data.window, recipe.action.horizon),
        proprio_dim=len(info.proprio),
        from_checkpoint=True,
        quantized=not exact,
    )
    if recipe.train.precision == "bf16-true" and not exact:  # it acts in the numbers in which it was trained
        policy.to(torch.bfloat16)
    load_weights(chosen, policy, policy.published)
    device = torch.device("cpu") if exact else _device(recipe.train.accelerator)
    policy.eval().requires_grad_(False).to(device)
    tokenize = lru_cache(INSTRUCTIONS)(lambda text: np.asarray(policy.text_encoder.tokenize(text), np.int64))
    embodiment = list(chosen.state["stores"]).index(store) if store else 0
    return Actor(policy, info, recipe.action.horizon, actions, proprio, tokenize, chosen, device, embodiment)


def choose_checkpoint(run: Path, which: Literal["last", "best"]) -> Checkpoint:
    """Return the newest checkpoint of a run, or that with the lowest validation error; raises CheckpointError."""
    if not (saved := checkpoints(run)):
        raise CheckpointError(f"{run}: holds no checkpoint; name the folder of a run, runs/kosmos_lstm for example")
    return saved[-1] if which == "last" else min(reversed(saved), key=lambda checkpoint: checkpoint.error)


def disagreements(trained: StoreInfo, world: StoreInfo, learner: str) -> list[str]:
    """Say where an environment differs from what a policy was, or will be, trained on; one line each.

    learner: who was trained on it, "the policy" for example. What the environment shows beyond that does not matter.
    """
    ours, theirs, shown = trained.action, world.action, list(world.cameras)
    pairs: dict[str, tuple[object, object]] = {
        "fps": (trained.fps, world.fps),
        **{f"action.{field.name}": (getattr(ours, field.name), getattr(theirs, field.name)) for field in fields(ours)},
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
    differing = [f"{key}: {learner} has {a}, the environment {b}" for key, (a, b) in pairs.items() if a != b]
    return differing + [
        f"{kind} '{name}': {learner} needs it, and the environment has none{did_you_mean(name, known)}"
        for kind, needed, known in (
            ("camera", trained.cameras, shown),
            ("feature", trained.features, list(world.features)),
        )
        for name in needed
        if name not in known
    ]


def _read_state(checkpoint: Checkpoint, store: str | None) -> tuple[StoreInfo, Normalizer, ProprioNormalizer]:
    """What a checkpoint says beside its weights."""
    state = checkpoint.state
    stores = state.get("stores", {})
    if store is not None and store not in stores:
        trained_on = did_you_mean(store, list(stores)) if stores else "; it was trained on one store alone"
        raise RecipeError(f"evaluate.store: {checkpoint.folder} knows none called '{store}'{trained_on}")
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
