"""The encoder in LeRobot's files of Diffusion Policy and VQ-BeT: names and settings."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from core import ConfigError
from core.weights import LeRobotFiles, filter_keys

# before these stands the name of the policy
ENCODER, PROJECTION = "rgb_encoder.", "rgb_feature_projector.0."
# LeRobot's names of a ResNet's modules, which are their places in a sequence, by timm's names
PLACES = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
# LeRobot's names of the other modules, by ours
MODULES = {"maps": "pool.nets", "output": "out"}
# the grid of coordinates, a bias without effect, and the counters of batch norms
UNUSED = ("pool.pos_grid", "pool.nets.bias", "num_batches_tracked")


def published_names(names: Sequence[str], order: Sequence[int] | None) -> dict[str, str]:
    """Return {our name: LeRobot's}, "encoders.0.resnet.conv1.weight" for example.

    order: for each of our encoders, its place in LeRobot's list; None: there is but one.
    """
    published = {}
    for name in names:
        if name.startswith("projection."):
            published[name] = PROJECTION + name.removeprefix("projection.")
            continue
        _, index, module, rest = name.split(".", 3)
        if module == "resnet":
            place, _, rest = rest.partition(".")
            rest = f"backbone.{PLACES[place]}.{rest}"
        else:
            rest = f"{MODULES[module]}.{rest}"
        published[name] = ENCODER + ("" if order is None else f"{order[int(index)]}.") + rest
    return published


def encoder_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the encoder's tensors without the policy's name in front; empty if there are none."""
    used = filter_keys(
        tensors,
        lambda name: (
            name.partition(".")[2].startswith((ENCODER, PROJECTION)) and not name.endswith(UNUSED)
        ),
    )
    return {name.partition(".")[2]: x for name, x in used.items()}


def check_files(
    files: LeRobotFiles,
    *,
    per_camera: bool,
    image_size: tuple[int, int] | None,
    crop_size: tuple[int, int] | None,
) -> None:
    """Raise ConfigError if the weights are of an encoder with other settings than the recipe's."""
    settings = {
        "use_separate_rgb_encoder_per_camera": (per_camera, "per_camera"),
        "resize_shape": (image_size and list(image_size), "image_size"),
        "crop_shape": (crop_size and list(crop_size), "crop_size"),
    }
    for key, (value, ours) in settings.items():
        files.check_setting(key, value, f"change vision_encoder.{ours}")


def places_of_cameras(files: LeRobotFiles, cameras: Sequence[str]) -> list[int]:
    """Return the place of each of our cameras among those of LeRobot's policy.

    Raises ConfigError if there are several, and their names are not those of the policy.
    """
    theirs = files.cameras
    if len(cameras) == 1 or not theirs:
        return list(range(len(cameras)))
    if sorted(theirs) != sorted(cameras):
        raise ConfigError(
            f"pretrained: '{files.weights.source}' sees the cameras {', '.join(theirs)}, and the "
            f"data have {', '.join(cameras)}; name the cameras alike"
        )
    return [theirs.index(name) for name in cameras]
