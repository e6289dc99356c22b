"""The five datasets: each function writes one into the present folder, and returns its episodes."""

from pathlib import Path
from typing import Any

import numpy as np

from tests.plugins.published_layouts.buffer import write_buffer
from tests.plugins.published_layouts.demonstrations import Demonstration, film, numbers
from tests.plugins.published_layouts.lerobot import (
    Dataset,
    camera_feature,
    numbers_feature,
    write_version_2,
    write_version_3,
)

POSE = ("x", "y", "z", "axis_angle1", "axis_angle2", "axis_angle3")
JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "gripper")
ARMS = tuple(f"{side}_{joint}" for side in ("left", "right") for joint in JOINTS)


def write_libero() -> list[Demonstration]:
    """As LeRobot publishes it: images in tables; two numbers of the state have one name.

    LeRobot's converter listed the first episode of a file under the file before it.
    """
    random = np.random.default_rng(0)
    tasks = ("put the bowl on the plate", "turn on the stove", "open the middle drawer")
    cameras = ("observation.images.image", "observation.images.image2")
    episodes = []
    for number in range(6):
        length = 8 + number
        actions = numbers(random, length, 7)
        actions[:, 6] = np.sign(actions[:, 6])
        columns = {"observation.state": numbers(random, length, 8), "action": actions}
        images = {camera: film(random, length) for camera in cameras}
        episodes.append(Demonstration(tasks[number % 3], columns, images, _times(length, 10)))
    features = {camera: camera_feature("image") for camera in cameras} | {
        "observation.state": numbers_feature((*POSE, "gripper", "gripper")),
        "action": numbers_feature((*POSE, "gripper")),
    }
    dataset = Dataset("panda", 10, features, tasks)
    files = [0, 0, 1, 1, 1, 2]
    write_version_3(Path("libero"), dataset, episodes, files, listed=[0, 0, 0, 1, 1, 1])
    return episodes


def write_pick_n_place() -> list[Demonstration]:
    """In GR00T's schema: a humanoid, texts as numbers of tasks, and no column frame_index.

    As in the sample that NVIDIA publishes, the list of tasks holds "valid", too, and info.json
    lists a video that is not there.
    """
    random = np.random.default_rng(1)
    words = [f"pick the {thing} from the counter" for thing in ("squash", "ketchup", "candle")]
    tasks = (words[0], "valid", *words[1:])
    episodes = []
    for number in range(6):
        length, instruction = 7 + number, words[number % 3]
        told = np.full(length, tasks.index(instruction))
        columns = {
            "observation.state": numbers(random, length, 44).astype(np.float64),
            "action": numbers(random, length, 44).astype(np.float64),
            "annotation.human.action.task_description": told,
            "annotation.human.validity": np.full(length, tasks.index("valid")),
            "next.reward": np.zeros(length),
            "next.done": np.arange(length) == length - 1,
        }
        images = {"observation.images.ego_view": film(random, length)}
        times = _times(length, 20).astype(np.float64)
        episodes.append(Demonstration(instruction, columns, images, times))
    motors = numbers_feature([f"motor_{i}" for i in range(44)], "float64")
    features = {
        "observation.images.egoview": camera_feature("video", 800),
        "observation.images.ego_view": camera_feature("video"),
        "observation.state": motors,
        "action": motors,
        "annotation.human.action.task_description": {"dtype": "int64", "shape": [1]},
        "annotation.human.validity": {"dtype": "int64", "shape": [1]},
        "next.reward": {"dtype": "float64", "shape": [1]},
        "next.done": {"dtype": "bool", "shape": [1]},
    }
    dataset = Dataset("GR1ArmsOnly", 20, features, tasks, has_frame_index=False)
    write_version_2(Path("pick_n_place"), dataset, episodes, "v2.0", _modality())
    return episodes


def _modality() -> dict[str, Any]:
    """Which numbers of state and action are which part of the robot."""
    parts = {"left_arm": 7, "left_hand": 6, "left_leg": 6, "neck": 3}
    parts |= {"right_arm": 7, "right_hand": 6, "right_leg": 6, "waist": 3}
    ends = np.cumsum([*parts.values()]).tolist()
    spans = {
        name: {"start": end - width, "end": end}
        for (name, width), end in zip(parts.items(), ends, strict=True)
    }
    return {
        "state": spans,
        "action": spans,
        "video": {"ego_view": {"original_key": "observation.images.ego_view"}},
        "annotation": {"human.action.task_description": {}, "human.validity": {}},
    }


def bridge_instructions() -> list[str]:
    """Forty instructions, of which no two are the same."""
    things = ("can", "pot", "towel", "spoon", "carrot", "lid", "cloth", "fork", "egg", "brush")
    places = ("in the sink", "on the stove", "to the left", "beside the cup")
    words = [f"put the {thing} {place}" for place in places for thing in things]
    words[3], words[17] = "open the drawer", "pull the drawer open"
    return words


def write_bridge() -> list[Demonstration]:
    """In LeRobot's version 2.1, with words of its own for every episode."""
    random = np.random.default_rng(2)
    words = bridge_instructions()
    camera = "observation.images.image_0"
    episodes = []
    for number, instruction in enumerate(words):
        length = 5 + number % 4
        state, actions = numbers(random, length, 8), numbers(random, length, 7)
        state[:, 6] = 0
        actions[:, 6] = actions[:, 6] > 0
        columns = {"observation.state": state, "action": actions}
        images = {camera: film(random, length)}
        episodes.append(Demonstration(instruction, columns, images, _times(length, 5)))
    hand = ("x", "y", "z", "roll", "pitch", "yaw")
    features = {
        camera: camera_feature("video"),
        "observation.state": numbers_feature((*hand, "pad", "gripper")),
        "action": numbers_feature((*hand, "gripper")),
    }
    write_version_2(Path("bridge"), Dataset("widowx", 5, features, words), episodes, "v2.1")
    return episodes


def write_aloha() -> list[Demonstration]:
    """Two arms: rows at about 10 Hz, at times between those of the images; videos of 30 Hz.

    The images of a demonstration are those of the videos.
    """
    random = np.random.default_rng(3)
    cameras = [f"observation.images.cam_{eye}" for eye in ("high", "left_wrist", "right_wrist")]
    episodes = []
    for number in range(4):
        length = 9 + number
        times = np.arange(length) / 10 + random.uniform(0, 0.08, length)
        columns = {"observation.state": numbers(random, length, 14)}
        columns["action"] = numbers(random, length, 14)
        for values in columns.values():
            values[:, [6, 13]] = np.abs(values[:, [6, 13]])
        images = {camera: film(random, 3 * length) for camera in cameras}
        times = times.astype(np.float32)
        episodes.append(Demonstration("uncap the pen", columns, images, times))
    features = {camera: camera_feature("video") for camera in cameras}
    features |= {name: numbers_feature(ARMS) for name in ("observation.state", "action")}
    dataset = Dataset("aloha", 10, features, ["uncap the pen"], video_fps=30)
    write_version_3(Path("aloha"), dataset, episodes, [0, 0, 1, 1], listed=[0, 0, 1, 1])
    return episodes


def write_umi(image_codec: Any) -> list[Demonstration]:
    """A replay buffer in an archive, with the path of a gripper in the hand, and no actions."""
    random = np.random.default_rng(4)
    episodes = []
    for number in range(4):
        length = 9 + number
        pose = numbers(random, length, 6)
        columns: dict[str, np.ndarray] = {
            "robot0_demo_end_pose": np.tile(pose[-1].astype(np.float64), (length, 1)),
            "robot0_demo_start_pose": np.tile(pose[0].astype(np.float64), (length, 1)),
            "robot0_eef_pos": pose[:, :3],
            "robot0_eef_rot_axis_angle": pose[:, 3:],
            "robot0_gripper_width": 0.08 * np.abs(numbers(random, length, 1)),
        }
        images = {"camera0_rgb": film(random, length)}
        times = np.arange(length) / 59.94
        episodes.append(Demonstration("put the cup on the saucer", columns, images, times))
    write_buffer(Path("umi.zarr.zip"), episodes, image_codec)
    return episodes


def _times(length: int, fps: int) -> np.ndarray:
    """(n) seconds, with the rounding of float32 that LeRobot's times have."""
    return (np.arange(length) / fps).astype(np.float32)
