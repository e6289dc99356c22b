"""What actions mean, by the controller that a file describes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

import numpy as np

from core import one_line
from core.episodes import ActionConvention, Frame, Gripper, Mode

RATE = 20.0  # Hz, robosuite's default
POSE = ("x", "y", "z", "rx", "ry", "rz", "gripper")
# how many metres or radians an action of 1.0 moves the hand in robosuite's OSC_POSE
SCALE = (0.05, 0.05, 0.05, 0.5, 0.5, 0.5)
MOST_ARMS = 2


@dataclass(frozen=True)
class Controller:
    """The control rate in Hz, and the convention of the actions if the controller is known.

    assumed: {part of the convention, or "fps": why it is a guess}.
    unknown: why the controller cannot be read; "" if it can.
    """

    rate: float
    convention: ActionConvention | None
    assumed: Mapping[str, str] = field(default_factory=dict)
    unknown: str = ""


def read_controller(width: int, environment: Mapping[str, Any]) -> Controller:
    """Read the controller from robosuite's env_args.

    Only OSC_POSE is known, for one arm or two, whose poses and grippers follow one another.

    width: number of action dimensions.
    """
    rate, assumed = _read_rate(environment)
    try:
        return Controller(rate, _read_convention(width, environment, rate), assumed)
    except (AttributeError, TypeError, ValueError) as error:
        unknown = f"env_args describes no controller ({one_line(error)})"
        return Controller(rate, None, assumed, unknown)


def _read_rate(environment: Mapping[str, Any]) -> tuple[float, dict[str, str]]:
    """Return the control rate in Hz, and {"fps": why} if it is a guess."""
    settings = environment.get("env_kwargs")
    rate = settings.get("control_freq") if isinstance(settings, dict) else None
    if rate is None:
        return RATE, {"fps": f"the file does not say the rate; {RATE:g} is robosuite's"}
    if not isinstance(rate, int | float) or not 0 < rate < inf:
        return RATE, {"fps": f"the file says a rate of {rate!r}; {RATE:g} is robosuite's"}
    return float(rate), {}


def _read_convention(
    width: int, environment: Mapping[str, Any], rate: float
) -> ActionConvention | None:
    """Return the convention of OSC_POSE; None for other controllers."""
    configs = (environment.get("env_kwargs") or {}).get("controller_configs")
    first = configs[0] if isinstance(configs, list) and configs else configs
    controller = first if isinstance(first, dict) else {}
    # robosuite 1.5 renamed the keys of this dictionary
    since_1_5 = "body_parts" in controller
    controller = (controller.get("body_parts") or {}).get("right", controller)
    arms, rest = divmod(width, len(POSE))
    if controller.get("type") != "OSC_POSE" or rest or not 1 <= arms <= MOST_ARMS:
        return None
    return _osc_pose(controller, arms, rate, since_1_5)


def _osc_pose(
    controller: Mapping[str, Any], arms: int, rate: float, since_1_5: bool
) -> ActionConvention:
    """Return the convention of OSC_POSE."""
    if since_1_5:
        is_delta = controller.get("input_type", "delta") == "delta"
    else:
        is_delta = controller.get("control_delta", True)
    in_base = since_1_5 and controller.get("input_ref_frame", "base") == "base"
    frame: Frame = "base" if in_base else "world"
    mode: Mode = "delta" if is_delta else "absolute"
    scale = np.ones(6)
    if is_delta:
        scale = np.broadcast_to(np.asarray(controller.get("output_max", SCALE), float), 6)
    size = len(POSE)
    prefixes = [""] if arms == 1 else [f"robot{arm}_" for arm in range(arms)]
    return ActionConvention(
        names=tuple(f"{prefix}{name}" for prefix in prefixes for name in POSE),
        mode=mode,
        frame=frame,
        rotation="axis_angle",
        scale=(*scale.tolist(), 1.0) * arms,
        rate=rate,
        grippers=tuple(
            Gripper(arm * size + 6, "binary", closed=1.0, open=-1.0) for arm in range(arms)
        ),
    )
