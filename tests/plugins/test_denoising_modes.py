"""Whether heads that denoise draw both modes of a distribution, as often and as wide as they are.

First with a perfect network, so that only the steps of sampling can be wrong; then with networks
that learn.
"""

from dataclasses import replace
from functools import partial
from typing import get_args

import pytest
import torch
from torch import Tensor

from core import ActionSpec, PolicyHead
from core.policy.action_dimensions import ActionDimensions
from core.testing import Setup
from plugins.heads.denoising.denoising import Predict, Process
from plugins.heads.denoising.diffusion import DiffusionConfig, NoiseDiffusion, build_diffusion
from plugins.heads.denoising.expert import ExpertHead
from plugins.heads.denoising.expert_config import ExpertConfig
from plugins.heads.denoising.flow import FlowConfig, build_flow
from plugins.heads.denoising.flow_matching import FlowMatching, FlowMatchingConfig
from plugins.heads.denoising.samplers import SAMPLERS
from plugins.heads.denoising.schedule import Prediction, target_of
from tests.contexts import noise
from tests.one_batch import build_head
from tests.two_modes import (
    MIXED,
    assert_two_modes,
    check_samples,
    check_two_modes,
    exact_actions,
    train_on_two_modes,
)

HEADS = {DiffusionConfig: build_diffusion, FlowConfig: build_flow, ExpertConfig: ExpertHead}

# -------------------------------------------------------------------------------- a perfect network


def draw(process: Process, predict: Predict) -> Tensor:
    """Draw 1,024 chunks (B T H A)."""
    action = MIXED.action
    x = process.sample(predict, (512, action.window, action.horizon, action.dim), noise())
    return ActionDimensions(action).unsigned(x)


def diffused(sampler: str, prediction: Prediction, steps: int) -> Tensor:
    """Draw chunks by denoising diffusion with a network that knows the distribution."""
    config = DiffusionConfig(sampler=sampler, prediction=prediction, steps=steps)
    process = NoiseDiffusion(config, clip=False)

    def predict(x: Tensor, time: Tensor) -> Tensor:
        signal, noise = process.levels.view(torch.float32)[:, time.long(), None, None]
        actions = exact_actions(x, signal, noise, MIXED.action)
        return target_of(prediction, actions, (x - signal * actions) / noise, signal, noise)

    return draw(process, predict)


def flowed(integrator: str, steps: int) -> Tensor:
    """Draw chunks by flow matching with a network that knows the distribution."""

    def predict(x: Tensor, time: Tensor) -> Tensor:
        share = time[..., None, None]
        return (x - exact_actions(x, 1 - share, share, MIXED.action)) / share

    return draw(FlowMatching(FlowMatchingConfig(integrator=integrator, steps=steps)), predict)


@pytest.mark.parametrize("prediction", get_args(Prediction))
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sampler_draws_what_a_perfect_network_knows(sampler, prediction):
    check_two_modes(diffused(sampler, prediction, steps=50), MIXED.action)


@pytest.mark.parametrize(("integrator", "steps"), [("euler", 50), ("midpoint", 10)])
def test_an_integrator_draws_what_a_perfect_network_knows(integrator, steps):
    check_two_modes(flowed(integrator, steps), MIXED.action)


def test_few_steps_draw_modes_narrower_than_they_are():
    """So the tests below take more steps than recipes do; no network could make up for it."""
    few = [diffused(sampler, "v_prediction", steps=10) for sampler in ("ddpm", "dpm_solver")]
    for actions in (*few, flowed("euler", steps=10)):
        with pytest.raises(AssertionError, match=r"chunks, the spread within modes is 0\.0[34]"):
            check_two_modes(actions, MIXED.action)


# ------------------------------------------------------------------------------ networks that learn

diffusion = partial(DiffusionConfig, width=64, depth=2, steps=50)
flow = partial(FlowConfig, width=64, depth=2, steps=50)
transformer = partial(FlowConfig, denoiser="transformer", width=32, depth=2, heads=2)
expert = partial(ExpertConfig, steps=30)
unet = DiffusionConfig(
    denoiser="unet",
    down_dims=(32, 32),
    kernel_size=3,
    n_groups=8,
    time_embed_dim=32,
    train_steps=50,
    prediction="epsilon",
    sampler="ddim",
    steps=50,
)
# the U-Net halves the chunk
EVEN = Setup(action=ActionSpec(window=2, horizon=4, dim=3, binary=(1,)))
# configuration, steps of training, learning rate
LEARNERS = {
    "epsilon": (diffusion(prediction="epsilon", sampler="ddpm"), 400, 5e-3),
    "concat": (diffusion(conditioning="concat"), 500, 5e-3),
    "flow": (flow(), 500, 5e-3),
    "transformer": (transformer(steps=50, times="uniform"), 450, 3e-3),
    "cross_attention": (
        transformer(
            conditioning="cross_attention", times="logit_normal", integrator="midpoint", steps=10
        ),
        600,
        5e-3,
    ),
    "expert": (expert(width=64, mlp_width=128), 400, 5e-3),
    "adaptive expert": (
        expert(width=32, mlp_width=64, conditioning="adaptive_norm"),
        300,
        5e-3,
    ),
}


@pytest.mark.parametrize("name", LEARNERS)
def test_two_modes_stay_two(name):
    config, steps, rate = LEARNERS[name]
    assert_two_modes(HEADS[type(config)], config, steps, learning_rate=rate)


@pytest.mark.slow
def test_two_modes_stay_two_in_a_unet():
    assert_two_modes(build_diffusion, unet, 600, setup=EVEN, learning_rate=1e-2)


@pytest.fixture(scope="module")
def trained() -> PolicyHead:
    return train_on_two_modes(build_diffusion, diffusion(), 500, learning_rate=5e-3)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_two_modes_stay_two_with_every_sampler(trained, sampler):
    head = build_head(build_diffusion, replace(diffusion(), sampler=sampler), MIXED)
    head.load_state_dict(trained.state_dict())
    check_samples(head.eval())
