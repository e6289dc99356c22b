"""The U-Net in LeRobot's files of Diffusion Policy: names, settings, and the order of cameras."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from core import ActionSpec, ConfigError, ContextSpec
from core.weights import LeRobotFiles, Pretrained, fill, strip_prefix
from plugins.heads.denoising.denoising import Denoiser

if TYPE_CHECKING:
    from plugins.heads.denoising.diffusion import DiffusionConfig

UNET = "diffusion.unet."
# The last norm of LeRobot's U-Net has as many groups, whatever its key n_groups says.
GROUPS = 8
# patterns of our names, and what stands there in LeRobot's
NAMES = (
    (r"^time\.mlp\.0\.", "diffusion_step_encoder.1."),
    (r"^time\.mlp\.2\.", "diffusion_step_encoder.3."),
    (r"^unet\.(down|up)sample\.(\d+)\.", r"\1_modules.\2.2."),
    (r"^unet\.(down|up)\.", r"\1_modules."),
    (r"^unet\.middle\.", "mid_modules."),
    (r"^unet\.last\.", "final_conv.0.block."),
    (r"^unet\.output\.", "final_conv.1."),
    (r"\.first\.", ".conv1.block."),
    (r"\.second\.", ".conv2.block."),
    (r"\.film\.", ".cond_encoder."),
    (r"\.residual\.", ".residual_conv."),
)


def published_name(name: str) -> str:
    """Return LeRobot's name of a tensor of our U-Net."""
    for pattern, theirs in NAMES:
        name = re.sub(pattern, theirs, name)
    return name


def load_unet(
    weights: Pretrained,
    *,
    config: "DiffusionConfig",
    context: ContextSpec,
    action: ActionSpec,
    denoiser: Denoiser,
) -> tuple[str, ...]:
    """Load the U-Net of LeRobot's Diffusion Policy, strictly.

    context, action: the sizes that the head was built for.

    Returns sentences with the numbers that the weights were trained on.

    Raises ConfigError if the weights are of another policy, of one with other settings, or of one
    whose proprioception or actions were normalised in another way.
    """
    files = LeRobotFiles(weights, {"STATE": "MIN_MAX", "ACTION": "MIN_MAX"})
    _check_settings(files, config, action)
    files.check_action_normalization(bounded=action.bounded)
    if context.proprio_dim:
        files.check_proprio_normalization(context.proprio_normalization)
    own = {published_name(name): x for name, x in denoiser.state_dict().items()}
    fill(own, strip_prefix(weights.tensors, UNET), weights.source)
    order = _condition_in_their_order(files, config, context)
    for name, weight in own.items():
        if name.endswith("cond_encoder.1.weight"):
            theirs = weight.clone()
            weight[:, config.time_embed_dim + order] = theirs[:, config.time_embed_dim :]
    return (
        *files.describe_expected("observation.state", "proprioception"),
        *files.describe_expected("action", "actions"),
    )


def _check_settings(files: LeRobotFiles, config: "DiffusionConfig", action: ActionSpec) -> None:
    """Raise ConfigError for settings that names and shapes of the weights do not show."""
    needed = {"denoiser": "unet", "condition": "observation", "n_groups": GROUPS}
    for key, value in needed.items():
        if getattr(config, key) != value:
            shown = f'"{value}"' if isinstance(value, str) else value
            raise ConfigError(
                f"pretrained: weights of LeRobot's Diffusion Policy need {key} = {shown}; set it"
            )
    files.check_setting("n_groups", GROUPS)
    settings: Mapping[str, tuple[object, str]] = {
        "n_obs_steps": (config.observation_frames, "policy_head.observation_frames"),
        "horizon": (
            action.horizon + config.observation_frames - 1,
            "action.horizon, which with observation_frames - 1 more is theirs",
        ),
        "num_train_timesteps": (config.train_steps, "policy_head.train_steps"),
        "beta_schedule": (config.betas, "policy_head.betas"),
        "prediction_type": (config.prediction, "policy_head.prediction"),
        "clip_sample": (config.clip, "policy_head.clip"),
    }
    if config.betas == "linear":
        settings = {
            **settings,
            "beta_start": (config.first_beta, "policy_head.first_beta"),
            "beta_end": (config.last_beta, "policy_head.last_beta"),
        }
    for key, (value, ours) in settings.items():
        files.check_setting(key, value, f"change {ours}")


def _condition_in_their_order(
    files: LeRobotFiles, config: "DiffusionConfig", context: ContextSpec
) -> Tensor:
    """Return the index in our condition of each number of LeRobot's condition.

    Both begin a frame with the proprioception. Then come the cameras, ours in the order of their
    names, LeRobot's in that of config.json. The vision encoder checks that the names agree.
    """
    proprio, width = context.proprio_dim, context.vision_width
    count = context.vision_tokens
    names = files.cameras if len(files.cameras) == count else [f"{i:04}" for i in range(count)]
    places = [sorted(names).index(name) for name in names]
    vision = [proprio + width * place + torch.arange(width) for place in places]
    frame = torch.cat([torch.arange(proprio), *vision])
    frames = torch.arange(config.observation_frames)[:, None]
    return (frame + len(frame) * frames).flatten()
