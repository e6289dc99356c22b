"""What LeRobot's files of a policy say besides the weights: settings, and normalisation.

Older files of weights hold the statistics of pixels, proprioception and actions as buffers; for
newer ones they lie in a file beside them, which LeRobot calls a processor. config.json beside the
weights says how the policy is built, which cameras it sees, and how each kind of number is
normalised.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from core.errors import ConfigError
from core.weights.pretrained import Pretrained, filter_keys

Kind = Literal["VISUAL", "STATE", "ACTION"]
PROCESSOR = "policy_preprocessor_step_*_normalizer_processor.safetensors"
# LeRobot's modes of normalisation, and the recipe's methods of the same meaning
METHODS = {"MEAN_STD": '"mean_std"', "MIN_MAX": '"min_max"'}


@dataclass(frozen=True)
class LeRobotFiles:
    """Weights that LeRobot wrote, with the files beside them.

    weights: the source.
    default_modes: {kind: mode} of normalisation where config.json does not say; default: MEAN_STD.

    Its methods raise ConfigError for a file that cannot be read.
    """

    weights: Pretrained
    default_modes: Mapping[Kind, str] = field(default_factory=dict)

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """The contents of config.json; nothing if it is not there."""
        file = self._folder / "config.json"
        if not file.exists():
            return {}
        try:
            settings = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(settings, dict):
                raise ValueError("it is no table of settings")
            return settings
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(f"pretrained: cannot read '{file}': {error}") from None

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras in the order in which the policy reads them; empty if not said."""
        features = self.settings.get("input_features")
        if not isinstance(features, dict):
            return ()
        images = (name for name in features if name.startswith("observation.image"))
        return tuple(name.removeprefix("observation.images.") for name in images)

    def mode(self, kind: Kind) -> str:
        """Return how a kind of number is normalised: "MEAN_STD", "MIN_MAX", "IDENTITY", ..."""
        modes, default = self.settings.get("normalization_mapping"), self.default_modes.get(kind)
        said = modes.get(kind) if isinstance(modes, dict) else None
        return str(said or default or "MEAN_STD")

    def check_setting(self, key: str, value: object, advice: str = "choose other weights") -> None:
        """Raise ConfigError if config.json has a key with another value.

        It is for settings that names and shapes of weights do not show. A key that is missing, as
        older versions of LeRobot leave some out, counts as right.
        """
        if self.settings.get(key, value) != value:
            raise ConfigError(
                f"pretrained: '{self.weights.source}' has {key} = {json.dumps(self.settings[key])} "
                f"in its config.json, and this part is built for {json.dumps(value)}; {advice}"
            )

    def pixel_statistics(self, cameras: Sequence[str]) -> tuple[Tensor, Tensor] | None:
        """Return mean and standard deviation of each camera's pixels in [0, 1], both (V 3 1 1).

        None: the weights say nothing of pixels.

        Raises ConfigError if the statistics of a camera are missing and those of other cameras
        differ, if they are none of three colours, or if pixels were normalised in another way.
        """
        if (mode := self.mode("VISUAL")) == "IDENTITY":
            zeros = torch.zeros(len(cameras), 3, 1, 1)
            return zeros, zeros + 1
        if mode != "MEAN_STD":
            raise ConfigError(
                f"pretrained: '{self.weights.source}' normalises pixels by {mode}, and the vision "
                "encoder by mean and standard deviation; choose other weights"
            )
        pixels = {
            feature: self._of_colours(feature)
            for feature, x in self._statistics.items()
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
                f"pretrained: '{self.weights.source}' has statistics of the cameras {there}, and "
                f"none of {', '.join(missing)}; name the cameras alike"
            )
        mean, std = torch.stack([pixels.get(name, common) for name in names.values()], dim=1)
        return mean, std

    def check_action_normalization(self, *, bounded: bool) -> None:
        """Raise ConfigError if the weights act in numbers that are normalised in another way.

        bounded: whether the recipe's normalisation keeps actions in [-1, 1].
        """
        mode = self.mode("ACTION")
        if (mode == "MIN_MAX") != bounded or mode not in METHODS:
            known = mode in METHODS
            advice = f"set action.normalization = {METHODS[mode]}" if known else "train anew"
            raise ConfigError(
                f"pretrained: '{self.weights.source}' has actions normalised by {mode}, and the "
                f"recipe's are normalised in another way; {advice}"
            )

    def check_proprio_normalization(self, method: str) -> None:
        """Raise ConfigError if the weights read proprioception that is normalised in another way.

        method: `data.proprio_normalization` of the recipe.
        """
        mode = self.mode("STATE")
        theirs = METHODS.get(mode, "")
        if theirs != f'"{method}"':
            advice = f"set data.proprio_normalization = {theirs}" if theirs else "train anew"
            raise ConfigError(
                f"pretrained: '{self.weights.source}' has proprioception normalised by {mode}, and "
                f"the recipe's is normalised in another way; {advice}"
            )

    def describe_expected(self, feature: str, what: str) -> tuple[str, ...]:
        """Return a sentence with the statistics of the numbers that the weights were trained on.

        feature: LeRobot's name of the numbers; what: ours. Nothing if the weights do not say.
        """
        found = self._statistics.get(feature.replace(".", "_"), {})
        is_range = self.mode("ACTION" if feature == "action" else "STATE") == "MIN_MAX"
        words = (
            {"min": "minimum", "max": "maximum"}
            if is_range
            else {"mean": "mean", "std": "standard deviation"}
        )
        if not words.keys() <= found.keys():
            return ()
        said = " and ".join(
            f"{word} ({', '.join(f'{x:.3g}' for x in found[kind].flatten())})"
            for kind, word in words.items()
        )
        return (
            f"the published weights were trained on {what} with {said}, and {what} are normalised "
            "by this run's own data: they should agree",
        )

    @property
    def _folder(self) -> Path:
        path = self.weights.path
        return path if path.is_dir() else path.parent

    @cached_property
    def _statistics(self) -> Mapping[str, Mapping[str, Tensor]]:
        """{feature with underscores in place of dots: {"mean": tensor, ...}}."""
        buffers = filter_keys(self.weights.tensors, lambda name: ".buffer_" in name)
        flat = {name.partition(".buffer_")[2]: tensor for name, tensor in buffers.items()}
        for file in sorted(self._folder.glob(PROCESSOR)):
            flat |= dict(Pretrained(str(file.absolute())).tensors)
        found: dict[str, dict[str, Tensor]] = {}
        for name, tensor in flat.items():
            feature, _, kind = name.rpartition(".")
            found.setdefault(feature.replace(".", "_"), {})[kind] = tensor
        return found

    def _of_colours(self, feature: str) -> Tensor:
        """Return the mean and the standard deviation of the pixels of a camera (2 3 1 1)."""
        statistics = self._statistics[feature]
        mean, std = (statistics[kind].flatten().float() for kind in ("mean", "std"))
        is_usable = len(mean) == len(std) == 3 and bool(torch.cat([mean, std]).isfinite().all())
        if not is_usable or not (std > 0).all():
            raise ConfigError(
                f"pretrained: '{self.weights.source}' has statistics of '{feature}' that are no "
                "mean and standard deviation of three colours; choose other weights"
            )
        return torch.stack([mean, std]).view(2, 3, 1, 1)
