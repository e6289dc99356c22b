"""Schedules and samplers against diffusers' schedulers, and the U-Net against LeRobot's."""

import ast
import math
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import einops
import pytest
import torch
from torch import Tensor, nn

from core import ActionSpec, ContextSpec, Generator
from plugins.heads.denoising.denoiser_config import DenoiserConfig
from plugins.heads.denoising.diffusion import DiffusionConfig, NoiseDiffusion
from plugins.heads.denoising.flow_matching import FlowMatching, FlowMatchingConfig
from plugins.heads.denoising.lerobot import published_name
from plugins.heads.denoising.schedule import encode_step
from plugins.heads.denoising.unet import UNetDenoiser

# diffusers 0.42 makes numpy arrays of tensors in a way that numpy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SHAPE = (2, 3, 4, 5)
PREDICTIONS = ["epsilon", "v_prediction", "sample"]
BETAS = ["squaredcos_cap_v2", "linear"]


class Recorder(Generator):
    """Keeps the noise that a process draws."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"), torch.Generator().manual_seed(0), ())
        self.drawn: list[Tensor] = []

    def normal(self, *shape: int) -> Tensor:
        self.drawn.append(super().normal(*shape))
        return self.drawn[-1]


class Network:
    """A network whose output depends on its inputs; keeps what it was asked and what it said."""

    def __init__(self) -> None:
        self.calls: list[tuple[Tensor, Tensor, Tensor]] = []

    def __call__(self, x: Tensor, time: Tensor) -> Tensor:
        output = (1.3 * x + time[..., None, None] / 7).sin() - 0.2 * x
        self.calls.append((x, time, output))
        return output


def close(received: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(received, expected, rtol=1e-5, atol=1e-5)


def follow(scheduler, network: Network, sampled: Tensor) -> None:
    """Let a scheduler make the same steps with the same outputs, and compare after each."""
    x = network.calls[0][0]
    assert len(scheduler.timesteps) == len(network.calls)
    for t, (asked, _, output) in zip(scheduler.timesteps, network.calls, strict=True):
        close(asked, x)
        x = scheduler.step(output, t, x).prev_sample
    close(sampled, x)


def scheduler_of(name: str, config: DiffusionConfig, **keys):
    """Return a scheduler with diffusers' defaults, but for what the head's keys say."""
    diffusers = pytest.importorskip("diffusers", reason="needs diffusers: pip install diffusers")
    scheduler = getattr(diffusers, name)(
        num_train_timesteps=config.train_steps,
        beta_schedule=config.betas,
        prediction_type=config.prediction,
        **keys,
    )
    scheduler.set_timesteps(config.steps)
    return scheduler


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
class TestSamplers:
    def sample(self, config: DiffusionConfig, clip: bool) -> tuple[Network, Recorder, Tensor]:
        network, recorder = Network(), Recorder()
        sampled = NoiseDiffusion(config, clip=clip).sample(network, SHAPE, recorder)
        return network, recorder, sampled

    @pytest.mark.parametrize(
        ("sampler", "train_steps", "steps"),
        [("ddpm", 100, 100), ("ddpm", 50, 16), ("ddpm_fixed_large", 50, 16)],
    )
    def test_ddpm(self, monkeypatch, prediction, betas, clip, sampler, train_steps, steps):
        config = DiffusionConfig(
            prediction=prediction,
            betas=betas,
            sampler=sampler,
            train_steps=train_steps,
            steps=steps,
        )
        variance = "fixed_large" if sampler == "ddpm_fixed_large" else "fixed_small"
        scheduler = scheduler_of("DDPMScheduler", config, clip_sample=clip, variance_type=variance)
        network, recorder, sampled = self.sample(config, clip)
        fresh = iter(recorder.drawn[1].unbind(2))
        monkeypatch.setattr(
            "diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, **__: next(fresh)
        )
        follow(scheduler, network, sampled)
        assert next(fresh, None) is None
        assert times_of(network) == scheduler.timesteps.tolist()

    @pytest.mark.parametrize(("train_steps", "steps"), [(100, 10), (1000, 7)])
    def test_ddim(self, prediction, betas, clip, train_steps, steps):
        config = DiffusionConfig(
            prediction=prediction,
            betas=betas,
            sampler="ddim",
            train_steps=train_steps,
            steps=steps,
        )
        scheduler = scheduler_of("DDIMScheduler", config, clip_sample=clip)
        network, _, sampled = self.sample(config, clip)
        follow(scheduler, network, sampled)
        assert times_of(network) == scheduler.timesteps.tolist()

    @pytest.mark.parametrize(("train_steps", "steps"), [(100, 10), (1000, 20), (100, 1), (50, 2)])
    def test_dpm_solver(self, prediction, betas, clip, train_steps, steps):
        config = DiffusionConfig(
            prediction=prediction,
            betas=betas,
            sampler="dpm_solver",
            train_steps=train_steps,
            steps=steps,
        )
        # With these keys, diffusers clips its estimates to [-1, 1].
        keys = {"thresholding": clip, "sample_max_value": 1.0}
        scheduler = scheduler_of("DPMSolverMultistepScheduler", config, **keys)
        network, _, sampled = self.sample(config, clip)
        follow(scheduler, network, sampled)
        assert times_of(network) == scheduler.timesteps.tolist()


def times_of(network: Network) -> list[float]:
    assert all((time == time[0, 0]).all() for _, time, _ in network.calls)
    return [time[0, 0].item() for _, time, _ in network.calls]


@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_noise_and_target_of_training(prediction, betas):
    config = DiffusionConfig(prediction=prediction, betas=betas)
    scheduler = scheduler_of("DDPMScheduler", config)
    actions, recorder, asked = torch.randn(64, *SHAPE[1:]), Recorder(), []

    def silent(x: Tensor, time: Tensor) -> Tensor:
        asked.append((x, time))
        return torch.zeros_like(x)

    process = NoiseDiffusion(config, clip=True).to(torch.bfloat16)  # the noise stays as it is
    errors = process.errors(silent, actions, recorder)
    (x, time), epsilon = asked[0], recorder.drawn[0]
    assert time.unique().numel() > 50
    assert 0 <= time.min() <= time.max() <= 99
    flat = (tensor.flatten(0, 1) for tensor in (actions, epsilon, time.long()))
    actions, epsilon, time = flat
    close(x.flatten(0, 1), scheduler.add_noise(actions, epsilon, time))
    targets = {
        "epsilon": epsilon,
        "sample": actions,
        "v_prediction": scheduler.get_velocity(actions, epsilon, time),
    }
    close(errors.flatten(0, 1), targets[prediction] ** 2)


@pytest.mark.parametrize("steps", [1, 4, 10])
def test_euler_steps_of_flow_matching(steps):
    diffusers = pytest.importorskip("diffusers", reason="needs diffusers: pip install diffusers")
    network = Network()
    sampled = FlowMatching(FlowMatchingConfig(steps=steps)).sample(network, SHAPE, Recorder())
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=[1 - i / steps for i in range(steps)])
    assert times_of(network) == pytest.approx((scheduler.timesteps / 1000).tolist())
    follow(scheduler, network, sampled)


# ---------------------------------------------------------------------------------- LeRobot's U-Net


@pytest.fixture(scope="module")
def lerobots_unet() -> type[nn.Module]:
    """LeRobot's class, compiled alone: importing its module needs a dozen other libraries."""
    lerobot = find_spec("lerobot")
    if lerobot is None or lerobot.origin is None:
        pytest.skip("needs LeRobot: pip install --no-deps lerobot==0.4.4")
    file = Path(lerobot.origin).parent / "policies" / "diffusion" / "modeling_diffusion.py"
    tree = ast.parse(file.read_text(encoding="utf-8"))
    names = ("SinusoidalPosEmb", "Conv1dBlock", "ConditionalResidualBlock1d", "ConditionalUnet1d")
    tree.body = [
        node
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name.removeprefix("Diffusion") in names
    ]
    module: dict[str, Any] = {
        "math": math,
        "torch": torch,
        "nn": nn,
        "einops": einops,
        "Tensor": Tensor,
    }
    module["DiffusionConfig"] = object  # in a signature
    exec(compile(tree, file, "exec"), module)
    return module["DiffusionConditionalUnet1d"]


@pytest.mark.parametrize("down_dims", [(16,), (8, 16), (16, 24, 32)])
@pytest.mark.parametrize("film_scale", [True, False])
def test_the_unet_is_lerobots(lerobots_unet, down_dims, film_scale):
    # LeRobot's last convolution has eight groups, whatever its key says.
    keys = {"down_dims": down_dims, "kernel_size": 5, "n_groups": 8}
    theirs = lerobots_unet(
        SimpleNamespace(
            **keys,
            action_feature=SimpleNamespace(shape=(3,)),
            diffusion_step_embed_dim=8,
            use_film_scale_modulation=film_scale,
            gradient_checkpointing=False,
        ),
        global_cond_dim=6,
    )
    config = DenoiserConfig(denoiser="unet", **keys, time_embed_dim=8, film_scale=film_scale)
    action = ActionSpec(window=2, horizon=8, dim=3)
    ours = UNetDenoiser(config, encode_step, ContextSpec(6, 1), action)
    weights = theirs.state_dict()
    ours.load_state_dict({name: weights[published_name(name)] for name in ours.state_dict()})
    x, observed = torch.randn(4, 2, 8, 3), torch.randn(4, 2, 6)
    step = torch.randint(100, (4, 2))
    expected = theirs(x.flatten(0, 1), step.flatten(), observed.flatten(0, 1))
    received = ours(x, step.float(), observed).flatten(0, 1)
    close(received, expected)
    expected.square().sum().backward()
    received.square().sum().backward()
    expected = {name: weight.grad for name, weight in theirs.named_parameters()}
    gradients = {published_name(name): weight.grad for name, weight in ours.named_parameters()}
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-5)
