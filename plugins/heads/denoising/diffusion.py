"""The head "diffusion": denoising diffusion over action chunks, as in Diffusion Policy."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
from annotated_types import Gt, Lt
from torch import Tensor, nn

from core import ActionSpec, ContextSpec, Generator
from plugins.heads.denoising.condition import Condition
from plugins.heads.denoising.denoiser_config import DenoiserConfig
from plugins.heads.denoising.denoisers import build_denoiser
from plugins.heads.denoising.denoising import Denoising, Predict
from plugins.heads.denoising.head import DenoisingHead
from plugins.heads.denoising.lerobot import load_unet
from plugins.heads.denoising.samplers import SAMPLERS, Sampler
from plugins.heads.denoising.schedule import (
    Betas,
    Prediction,
    actions_and_noise,
    encode_step,
    make_alphas_cumprod,
    target_of,
)


@dataclass(frozen=True)
class DiffusionConfig(DenoiserConfig):
    """Denoising diffusion (Ho et al. 2020; Chi et al. 2023) over each frame's chunk."""

    train_steps: Annotated[int, Gt(1)] = 100
    """number of noise levels in training."""
    betas: Betas = "squaredcos_cap_v2"
    """how the noise grows from step to step: "squaredcos_cap_v2" or "linear"."""
    first_beta: Annotated[float, Gt(0), Lt(1)] = 1e-4
    """first beta of "linear"."""
    last_beta: Annotated[float, Gt(0), Lt(1)] = 0.02
    """last beta of "linear"."""
    prediction: Prediction = "v_prediction"
    """what the network predicts: "epsilon", the noise, as in Diffusion Policy, which needs longer
    training for few steps of sampling; "v_prediction", a mixture of noise and actions (Salimans
    and Ho 2022); "sample", the actions, which hardly learns how much actions vary around a mode.
    """
    sampler: Sampler = "dpm_solver"
    """"dpm_solver", which is DPM-Solver++ of order 2; "ddim" (eta 0); "ddpm", which draws fresh
    noise at every step; or "ddpm_fixed_large", which draws more of it. With as many steps as
    `train_steps`, Diffusion Policy has "ddpm", and Octo "ddpm_fixed_large".
    """
    steps: Annotated[int, Gt(0)] = 10
    """number of steps of the sampler."""
    clip: bool = True
    """whether every step of the sampler keeps its estimate of the actions in [-1, 1], as Diffusion
    Policy does; no effect if `action.normalization` does not keep actions there.
    """
    max_action: Annotated[float, Gt(0)] | None = None
    """bound, in normalised units, of the actions that training adds noise to, and of the noisy
    chunk after every step of the sampler; 5 in Octo. Default: none.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        # DPM-Solver++ leaves out the first step of training.
        most = self.train_steps - (self.sampler == "dpm_solver")
        if self.steps > most:
            raise ValueError(
                f"steps = {self.steps} is more than {most}, which train_steps = "
                f"{self.train_steps} allows for {self.sampler!r}"
            )


def build_diffusion(
    config: DiffusionConfig, *, context: ContextSpec, action: ActionSpec
) -> DenoisingHead:
    """Build the head, which denoises the chunk of every frame step by step.

    Training adds the noise of a random step to a chunk, and the network predicts it (Ho et al.
    2020); the loss is the mean squared error of the prediction.

    Raises ConfigError if the window or the vision encoder does not fit the condition, or if the
    U-Net cannot halve the chunk as often as it must.
    """
    condition = Condition(config, context, action)
    denoiser = build_denoiser(config, encode_step, condition.context, condition.action)
    process = NoiseDiffusion(config, clip=config.clip and action.bounded)
    denoising = Denoising(process, denoiser, condition.action, clip=config.clip)
    load = partial(load_unet, config=config, context=context, action=action, denoiser=denoiser)
    return DenoisingHead("diffusion", denoising, condition, load)


class NoiseDiffusion(nn.Module):
    """The process of denoising diffusion; times are steps of training, from 0.

    clip: whether the sampler keeps its estimates of the actions in [-1, 1].
    """

    def __init__(self, config: DiffusionConfig, *, clip: bool) -> None:
        super().__init__()
        self.prediction, self.clip = config.prediction, clip
        self.max_action = math.inf if config.max_action is None else config.max_action
        alphas_cumprod = make_alphas_cumprod(
            config.betas, config.train_steps, config.first_beta, config.last_beta
        )
        self.steps = SAMPLERS[config.sampler](alphas_cumprod.numpy(), config.steps)
        self.draws = sum(bool(step.of_fresh) for step in self.steps)
        # Kept as the bits of float32 numbers, which no cast of the policy to bfloat16 rounds.
        levels = torch.stack([alphas_cumprod, 1 - alphas_cumprod]).sqrt()
        self.register_buffer("levels", levels.view(torch.int32), persistent=False)
        self.levels: Tensor

    def errors(self, predict: Predict, actions: Tensor, generator: Generator) -> Tensor:
        """Add the noise of random steps to actions (B T H A) -> squared errors (B T H A)."""
        actions = actions.clamp(-self.max_action, self.max_action)
        epsilon = generator.normal(*actions.shape)
        levels = self.levels.view(torch.float32)
        step = (generator.uniform(*actions.shape[:2]) * levels.shape[1]).long()
        signal, noise = levels[:, step, None, None]
        output = predict(signal * actions + noise * epsilon, step.float())
        return (output - target_of(self.prediction, actions, epsilon, signal, noise)) ** 2

    def sample(self, predict: Predict, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Turn noise into actions of a shape (B T H A), all noise being drawn before the steps."""
        x = generator.normal(*shape)
        fresh = iter(generator.normal(*shape[:2], self.draws, *shape[2:]).unbind(2))
        earlier = torch.zeros_like(x)
        for step in self.steps:
            output = predict(x, x.new_full(shape[:2], step.time))
            actions, epsilon = actions_and_noise(
                self.prediction, output, x, step.signal, step.noise
            )
            if self.clip:
                actions = actions.clamp(-1, 1)
            x = step.of_x * x + step.of_actions * actions + step.of_epsilon * epsilon
            x = x + step.of_earlier * earlier
            if step.of_fresh:
                x = x + step.of_fresh * next(fresh)
            x = x.clamp(-self.max_action, self.max_action)
            earlier = actions
        return x
