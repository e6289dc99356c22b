"""What actions mean, by the controller that a file describes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

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
    settings = environment.get("env_kwargs") or {}
    rate = settings.get("control_freq")
    assumed = {} if rate else {"fps": f"the file does not say the rate; {RATE:g} is robosuite's"}
    configs = settings.get("controller_configs")
    first = configs[0] if isinstance(configs, list) and configs else configs
    controller = first if isinstance(first, dict) else {}
    # robosuite 1.5 renamed the keys of this dictionary
    since_1_5 = "body_parts" in controller
    controller = (controller.get("body_parts") or {}).get("right", controller)
    arms, rest = divmod(width, len(POSE))
    convention = None
    if controller.get("type") == "OSC_POSE" and not rest and 1 <= arms <= MOST_ARMS:
        convention = _osc_pose(controller, arms, float(rate or RATE), since_1_5)
    return Controller(float(rate or RATE), convention, assumed)


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
