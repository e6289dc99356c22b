"""CALVIN's conventions, which its simulator and its data share."""

from collections.abc import Mapping

from core.episodes import ActionConvention, Camera, Gripper, StoreInfo

RATE = 30.0  # Hz
# {Joinery's name of a camera: calvin_env's name of it}
CAMERAS = {"static": "static", "wrist": "gripper"}
# names of the dimensions of CALVIN's `robot_obs`
PROPRIO = (
    *("tcp_x", "tcp_y", "tcp_z", "roll", "pitch", "yaw", "gripper_opening"),
    *(f"joint_{number}" for number in range(1, 8)),
    "gripper_action",
)


def make_info(cameras: Mapping[str, Camera]) -> StoreInfo:
    """Describe CALVIN's episodes, whose images have the sizes of these cameras."""
    return StoreInfo(
        fps=RATE,
        cameras=cameras,
        action=ActionConvention(
            names=("x", "y", "z", "roll", "pitch", "yaw", "gripper"),
            mode="delta",
            frame="world",
            rotation="euler_xyz",
            scale=(0.02, 0.02, 0.02, 0.05, 0.05, 0.05, 1.0),
            rate=RATE,
            grippers=(Gripper(dimension=6, kind="binary", closed=-1.0, open=1.0),),
            units=("m",) * 3 + ("rad",) * 3 + ("1",),
        ),
        proprio=PROPRIO,
        proprio_units=("m",) * 3 + ("rad",) * 3 + ("m",) + ("rad",) * 7 + ("1",),
        origin="CALVIN (https://github.com/mees/calvin), MIT licence",
    )
