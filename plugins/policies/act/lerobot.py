"""What LeRobot's files of ACT say besides the weights: settings, and how numbers were normalised.

Older files of weights hold the statistics of pixels, proprioception and actions as buffers; for
newer ones they lie in a file beside them, which LeRobot calls a processor. config.json beside the
weights says how each kind of number is normalised: ACT's default is by mean and standard deviation.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from core import ConfigError
from core.weights import Pretrained, filter_keys

PROCESSOR = "policy_preprocessor_step_*_normalizer_processor.safetensors"
# settings of LeRobot's ACT of which only one value is supported
ONLY = {
    "feedforward_activation": "relu",
    "pre_norm": False,
    "replace_final_stride_with_dilation": False,
}
# LeRobot's modes of normalisation, and the recipe's methods of the same meaning
METHODS = {"MEAN_STD": '"mean_std"', "MIN_MAX": '"min_max"'}


def check_settings(weights: Pretrained) -> None:
    """Raise ConfigError if the weights are of an ACT that is built in another way.

    The names and shapes of weights do not show these settings.
    """
    settings = _settings(weights)
    for key, value in ONLY.items():
        if settings.get(key, value) != value:
            raise ConfigError(
                f"pretrained: '{weights.source}' has {key} = {json.dumps(settings[key])} in its "
                f"config.json, and ACT's parts are built for {json.dumps(value)} alone; choose "
                "other weights"
            )


def pixel_statistics(weights: Pretrained, cameras: Sequence[str]) -> tuple[Tensor, Tensor] | None:
    """Return mean and standard deviation of each camera's pixels in [0, 1], both (V 3 1 1).

    None: the weights say nothing of pixels.

    Raises ConfigError if the statistics of a camera are missing and those of other cameras differ,
    if they are none of three colours, or if pixels were normalised in another way.
    """
    if (mode := _mode(weights, "VISUAL")) == "IDENTITY":
        zeros = torch.zeros(len(cameras), 3, 1, 1)
        return zeros, zeros + 1
    if mode != "MEAN_STD":
        raise ConfigError(
            f"pretrained: '{weights.source}' normalises pixels by {mode}, and 'act_vision' by mean "
            "and standard deviation; choose other weights"
        )
    known = _statistics(weights)
    pixels = {
        feature: _of_colours(x, feature, weights.source)
        for feature, x in known.items()
        if feature.startswith("observation_image") and {"mean", "std"} <= x.keys()
    }
    if not pixels:
        return None
    common = next(iter(pixels.values()))
    all_alike = all(x.equal(common) for x in pixels.values())
    names = {camera: "observation_images_" + camera.replace(".", "_") for camera in cameras}
    missing = [camera for camera, name in names.items() if name not in pixels]
    if missing and not all_alike:
        there = ", ".join(name.removeprefix("observation_images_") for name in pixels)
        raise ConfigError(
            f"pretrained: '{weights.source}' has statistics of the cameras {there}, and none of "
            f"{', '.join(missing)}; name the cameras alike"
        )
    mean, std = torch.stack([pixels.get(name, common) for name in names.values()], dim=1)
    return mean, std


def check_action_normalization(weights: Pretrained, *, bounded: bool) -> None:
    """Raise ConfigError if the weights act in numbers that are normalised in another way.

    bounded: whether the recipe's normalisation keeps actions in [-1, 1].
    """
    mode = _mode(weights, "ACTION")
    if (mode == "MIN_MAX") != bounded or mode not in METHODS:
        advice = f"set action.normalization = {METHODS[mode]}" if mode in METHODS else "train anew"
        raise ConfigError(
            f"pretrained: '{weights.source}' has actions normalised by {mode}, and the recipe's "
            f"are normalised in another way; {advice}"
        )


def describe_expected(weights: Pretrained, feature: str, what: str) -> tuple[str, ...]:
    """Return a sentence with the mean and standard deviation of what the weights were trained on.

    feature: LeRobot's name of the numbers; what: ours. Returns nothing if the weights do not say.
    """
    found = _statistics(weights).get(feature.replace(".", "_"), {})
    if not {"mean", "std"} <= found.keys():
        return ()
    mean, std = (", ".join(f"{x:.3g}" for x in found[name].flatten()) for name in ("mean", "std"))
    return (
        f"the published weights were trained on {what} with mean ({mean}) and standard deviation "
        f"({std}), and {what} are normalised by this run's own data: they should agree",
    )


def _statistics(weights: Pretrained) -> Mapping[str, Mapping[str, Tensor]]:
    """Return {feature with underscores in place of dots: {"mean": tensor, ...}}."""
    buffers = filter_keys(weights.tensors, lambda name: ".buffer_" in name)
    flat = {name.partition(".buffer_")[2]: tensor for name, tensor in buffers.items()}
    for file in sorted(_folder(weights).glob(PROCESSOR)):
        flat |= dict(Pretrained(str(file.absolute())).tensors)
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in flat.items():
        feature, _, kind = name.rpartition(".")
        found.setdefault(feature.replace(".", "_"), {})[kind] = tensor
    return found


def _of_colours(statistics: Mapping[str, Tensor], feature: str, source: str) -> Tensor:
    """Return the mean and the standard deviation of the pixels of a camera (2 3 1 1)."""
    mean, std = (statistics[kind].flatten().float() for kind in ("mean", "std"))
    is_usable = len(mean) == len(std) == 3 and bool(torch.cat([mean, std]).isfinite().all())
    if not is_usable or not (std > 0).all():
        raise ConfigError(
            f"pretrained: '{source}' has statistics of '{feature}' that are no mean and standard "
            "deviation of three colours; choose other weights"
        )
    return torch.stack([mean, std]).view(2, 3, 1, 1)


def _folder(weights: Pretrained) -> Path:
    return weights.path if weights.path.is_dir() else weights.path.parent


def _mode(weights: Pretrained, kind: Literal["VISUAL", "ACTION"]) -> str:
    """Return how config.json says that a kind of number is normalised."""
    modes = _settings(weights).get("normalization_mapping", {})
    return str(modes.get(kind, "MEAN_STD")) if isinstance(modes, dict) else "MEAN_STD"


def _settings(weights: Pretrained) -> Mapping[str, Any]:
    """Return the contents of config.json beside the weights; nothing if it is not there.

    Raises ConfigError if it cannot be read.
    """
    file = _folder(weights) / "config.json"
    if not file.exists():
        return {}
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(settings, dict):
            raise ValueError("it is no table of settings")
        return settings
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"pretrained: cannot read '{file}': {error}") from None
