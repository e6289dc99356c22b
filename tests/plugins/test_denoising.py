"""The heads "diffusion", "flow" and "expert": contracts, overfitting, mistakes."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from core import ActionSpec, ConfigError, PolicyHead
from core.policy.recomputation import recompute_blocks
from core.recipe.recipe import load_recipe
from core.registry.catalogue import load_plugins
from core.testing import Setup, checks_for, stand_in
from core.testing.stand_in import context_for, context_of, windows
from plugins.heads.denoising.diffusion import DiffusionConfig, build_diffusion
from plugins.heads.denoising.expert import ExpertHead
from plugins.heads.denoising.expert_config import ExpertConfig
from plugins.heads.denoising.flow import FlowConfig, build_flow
from plugins.heads.denoising.flow_matching import FlowMatching, FlowMatchingConfig
from tests.contexts import noise
from tests.core.policy.test_policy import RECIPE
from tests.one_batch import assert_overfits_one_batch, build_head
from tests.strangers import batch_of, build

SIZES = {"width": 16, "depth": 1, "heads": 2}
SIZES |= {"down_dims": (8, 16), "kernel_size": 3, "n_groups": 4, "time_embed_dim": 8}
diffusion = partial(DiffusionConfig, **SIZES, train_steps=10, steps=3)
flow = partial(FlowConfig, **SIZES, steps=3)
small_diffusion = partial(
    DiffusionConfig, **SIZES | {"width": 64, "depth": 2}, train_steps=100, steps=10
)
expert = partial(ExpertConfig, width=16, mlp_width=32, steps=3)

HEADS = {DiffusionConfig: build_diffusion, FlowConfig: build_flow, ExpertConfig: ExpertHead}
UNBOUNDED = Setup(action=ActionSpec(window=2, horizon=4, dim=3, bounded=False))
BINARY = Setup(action=ActionSpec(window=2, horizon=2, dim=2, binary=(0, 1)), tokens=1)
# without proprioception, and with one frame
BARE = Setup(proprio_dim=0, action=ActionSpec(window=1, horizon=3, dim=2))
# so that the U-Net's chunk, which begins two actions earlier, has an even length
LONGER = Setup(action=ActionSpec(window=3, horizon=2, dim=3, binary=(1,)), proprio_dim=0)
CASES = [
    (diffusion(prediction="sample"), BINARY),
    (diffusion(conditioning="concat", sampler="ddim", prediction="epsilon"), UNBOUNDED),
    (diffusion(denoiser="transformer", sampler="ddpm", betas="linear"), BARE),
    (diffusion(denoiser="transformer", conditioning="concat", prediction="v_prediction"), Setup()),
    (diffusion(denoiser="transformer", conditioning="cross_attention", clip=False), Setup()),
    (diffusion(denoiser="unet", sampler="ddpm", prediction="v_prediction"), Setup()),
    (diffusion(denoiser="mlp_resnet", sampler="ddpm_fixed_large", max_action=2.0), UNBOUNDED),
    (diffusion(condition="observation", observation_frames=2, sampler="ddpm"), Setup()),
    (diffusion(denoiser="unet", condition="observation", observation_frames=3), LONGER),
    (flow(observation_frames=2, denoiser="transformer"), Setup()),
    (flow(condition="observation"), BARE),
    (flow(), BARE),
    (flow(conditioning="concat", integrator="midpoint"), BINARY),
    (flow(denoiser="transformer", times="logit_normal"), Setup()),
    (flow(denoiser="transformer", conditioning="concat", times="uniform"), UNBOUNDED),
    (flow(denoiser="transformer", conditioning="cross_attention"), Setup()),
    (flow(denoiser="unet", film_scale=False, clip=False), Setup()),
    (flow(denoiser="mlp_resnet"), BARE),
    (expert(), Setup()),
    (expert(conditioning="adaptive_norm", proprio=False, positions=False), UNBOUNDED),
    (expert(integrator="midpoint", times="uniform"), BARE),
]
CHECKS = [
    pytest.param(check, id=f"{i}-{check}")
    for i, (config, given) in enumerate(CASES)
    for check in checks_for("policy_head", HEADS[type(config)], config, given)
]


@pytest.mark.parametrize("check", CHECKS)
def test_contract(check):
    check()


def make(config, given: Setup | None = None) -> PolicyHead:
    return build_head(HEADS[type(config)], config, given or Setup())


# ----------------------------------------------------------------------------------------- learning

# configuration, steps of training, learning rate
LEARNERS = {
    "ddim": (small_diffusion(sampler="ddim", prediction="sample"), 250, 5e-3),
    "ddpm": (small_diffusion(sampler="ddpm", prediction="epsilon", steps=25), 300, 3e-3),
    "dpm_solver": (small_diffusion(conditioning="concat"), 300, 3e-3),
    "unet": (
        diffusion(
            denoiser="unet", prediction="sample", train_steps=20, steps=10, down_dims=(32, 32)
        ),
        250,
        1e-2,
    ),
    "mlp_resnet": (
        small_diffusion(
            denoiser="mlp_resnet",
            time_embed_dim=16,
            prediction="epsilon",
            sampler="ddpm_fixed_large",
            train_steps=20,
            steps=20,
            max_action=5.0,
        ),
        300,
        3e-3,
    ),
    "flow": (flow(width=64, depth=2, steps=10), 300, 3e-3),
    "transformer": (
        flow(denoiser="transformer", width=32, depth=2, steps=10, times="uniform"),
        450,
        3e-3,
    ),
    "cross_attention": (
        flow(
            denoiser="transformer",
            width=32,
            conditioning="cross_attention",
            integrator="midpoint",
            times="logit_normal",
            steps=5,
        ),
        250,
        1e-2,
    ),
    "two frames": (
        flow(condition="observation", observation_frames=2, width=64, depth=2, steps=10),
        300,
        3e-3,
    ),
    "expert": (expert(width=64, mlp_width=128, steps=10), 400, 3e-3),
    "adaptive expert": (
        expert(width=32, mlp_width=64, steps=10, conditioning="adaptive_norm"),
        300,
        5e-3,
    ),
}


@pytest.mark.parametrize("name", LEARNERS)
def test_one_batch_is_overfitted(name):
    config, steps, rate = LEARNERS[name]
    assert_overfits_one_batch(HEADS[type(config)], config, steps=steps, learning_rate=rate)


# -------------------------------------------------------------------------------------- the process


@pytest.mark.parametrize(
    ("times", "distribution"),
    [
        ("uniform", lambda t: t),
        ("beta", lambda t: ((t - 0.001) / 0.999).clamp(min=0) ** 1.5),
        # of a logit-normal time, the logit is normal
        ("logit_normal", lambda t: torch.special.ndtr(torch.logit(t))),
    ],
)
def test_times_of_training_have_their_distribution(times, distribution):
    drawn = FlowMatching(FlowMatchingConfig(times=times)).draw_times((100, 200), noise())
    drawn = drawn.flatten().sort().values
    assert 0 <= drawn[0] < drawn[-1] <= 1
    # the largest distance between distribution functions, by Kolmogorov and Smirnov
    distance = (distribution(drawn) - torch.linspace(0, 1, len(drawn))).abs().max()
    assert distance < 1.63 / len(drawn) ** 0.5  # exceeded once in a hundred seeds


@pytest.mark.parametrize(("integrator", "order"), [("euler", 1), ("midpoint", 2)])
def test_integrators_have_their_order(integrator, order):
    """Along dx/dt = x t, the error shrinks by 2 to the power of the order if steps are halved."""

    def error(steps: int) -> float:
        process = FlowMatching(FlowMatchingConfig(integrator=integrator, steps=steps))
        end = process.sample(lambda x, time: x * time[..., None, None], (1, 1, 1, 4), noise())
        start = noise().normal(1, 1, 1, 4)
        return (end - start * torch.tensor(-0.5).exp()).abs().max().item()

    assert error(8) / error(16) == pytest.approx(2**order, rel=0.15)


@pytest.mark.parametrize("head", ["diffusion", "flow", "expert"])
def test_the_backbone_runs_once_for_all_steps(tmp_path, head):
    calls = []
    policy = build(tmp_path, f'name = "{head}"\nwidth = 16\nsteps = 4')
    for method in ("forward", "read", "remember"):
        original = getattr(policy.backbone, method)

        def counted(*arguments, original=original):
            calls.append(original)
            return original(*arguments)

        setattr(policy.backbone, method, counted)
    with torch.no_grad():
        policy.predict(batch_of(policy), noise())
    assert 1 <= len(calls) <= 2  # `read` may call `forward`


def test_sampled_actions_are_bounded_where_they_can_be():
    for config in (diffusion(), flow(), expert()):
        for clip, bounded in ((True, True), (True, False), (False, True)):
            action = ActionSpec(window=3, horizon=4, dim=5, binary=(3,), bounded=bounded)
            head = make(replace(config, clip=clip), Setup(action=action))
            with torch.no_grad():
                head.denoising.denoiser.output.bias += 5
                actions = head(context_for(head, Setup()), noise())
            beyond = (actions[..., [0, 1, 2, 4]].abs() > 1).any().item()
            assert beyond == (not (clip and bounded)), (type(config), clip, bounded)
            assert ((actions[..., 3] >= 0) & (actions[..., 3] <= 1)).all()


@pytest.mark.parametrize("config", [diffusion(denoiser="unet"), flow(), expert()])
def test_recomputed_blocks_give_the_same_gradients(config):
    context, batch = context_of(Setup(), windows(Setup())).detached(), stand_in.batch(Setup())
    gradients = []
    for recomputes in (False, True):
        head = make(config)
        if recomputes:
            recompute_blocks(head, "policy_head")
        torch.stack(list(head.loss(context, batch, noise()).values())).sum().backward()
        gradients.append([weight.grad for weight in head.parameters()])
    torch.testing.assert_close(*gradients)


# ------------------------------------------------------------------------------ the expert's tokens


def test_the_expert_reads_proprioception():
    given = Setup()
    for reads in (True, False):
        head = make(expert(proprio=reads), given)
        context = context_for(head, given)
        other = replace(context, proprio=context.proprio + 1)
        with torch.no_grad():
            same = torch.equal(head(context, noise()), head(other, noise()))
        assert same != reads


def test_the_token_of_proprioception_sees_no_action():
    given = Setup()
    network = make(expert(), given).denoising.denoiser
    observed = network.observe(context_of(given, windows(given), needs=frozenset({"keys_values"})))
    frames, count = given.action.window, given.action.horizon + 1
    among = observed.mask[0, 0, :, -frames * count :].unflatten(1, (frames, count))
    among = torch.stack([among[i * count : (i + 1) * count, i] for i in range(frames)])
    assert not among[:, 0, 1:].any()
    assert among[:, 1:].all()
    assert among[:, :, 0].all()


# ----------------------------------------------------------------------------------------- mistakes


def test_a_bound_holds_for_training_and_sampling():
    head = make(diffusion(max_action=0.5, clip=False), UNBOUNDED)
    context = context_for(head, UNBOUNDED)
    with torch.no_grad():
        assert head(context, noise()).abs().max() <= 0.5
    batch = stand_in.batch(UNBOUNDED)
    far, bound = (replace(batch, actions=torch.full_like(batch.actions, x)) for x in (9.0, 0.5))
    losses = [head.loss(context, x, noise())["diffusion"] for x in (far, bound)]
    assert losses[0] == losses[1]


def test_a_chunk_that_the_unet_cannot_halve_is_refused():
    given = Setup(action=ActionSpec(window=1, horizon=5, dim=2))
    with pytest.raises(
        ConfigError, match=r"policy_head\.down_dims: .* its 5 actions .* are no multiple"
    ):
        make(diffusion(denoiser="unet"), given)


@pytest.mark.parametrize(
    ("lines", "mistake"),
    [
        ('name = "diffusion"\nsampler = "ddim"\nsteps = 101', "steps = 101 is more than 100"),
        ('name = "diffusion"\nsteps = 100', "steps = 100 is more than 99"),
        ('name = "flow"\nconditioning = "film"', "choose 'adaptive_norm' or 'concat'"),
        ('name = "flow"\nwidth = 33', "width = 33 must be even"),
        ('name = "flow"\ndenoiser = "transformer"\nheads = 3', "heads = 3 does not divide"),
        ('name = "flow"\ndenoiser = "unet"\ndown_dims = [12]', "multiple of n_groups = 8"),
        ('name = "flow"\ndenoiser = "unet"\nkernel_size = 4', "kernel_size = 4 must be odd"),
        ('name = "flow"\ndenoiser = "unet"\ntime_embed_dim = 5', "time_embed_dim = 5 must be even"),
        (
            'name = "flow"\ndenoiser = "mlp_resnet"\ntime_embed_dim = 5',
            "time_embed_dim = 5 must be",
        ),
        ('name = "flow"\ndenoiser = "mlp_resnet"\nconditioning = "film"', "choose 'concat'"),
        ('name = "expert"\nwidth = 33', "width = 33 must be even"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_by_the_recipe(tmp_path, lines, mistake):
    text = RECIPE.partition("[policy_head]")[0] + f"[policy_head]\n{lines}\n"
    (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises(ConfigError, match=mistake):
        load_recipe(tmp_path / "recipe.toml", [], load_plugins())
