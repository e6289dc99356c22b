"""A stand-in for an installed calvin_env: its names, signatures and quirks, and simple physics.

The gripper follows the actions; a closed one drags the drawer along y, an open one presses the
button while it turns about z. State that calvin_env carries over from one episode to the next is
carried over here, too.
"""

import sys
from importlib import metadata
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml

COMMIT = "0123456789abcdef"
SIZES = {"static": 200, "gripper": 84, "tactile": 160}
TARGETS = {
    "open_drawer": ["move_door_rel", "base__drawer", 0.12],
    "close_drawer": ["move_door_rel", "base__drawer", -0.12],
    "turn_on_led": ["toggle_light", "led", 0, 1],
    "turn_off_led": ["toggle_light", "led", 1, 0],
}


class Settings(dict[str, Any]):
    """A DictConfig: keys that are also attributes."""

    def __getattr__(self, name: str) -> Any:
        return self[name]

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


class OmegaConf:
    @staticmethod
    def load(file_: Path | StringIO) -> Any:
        text = file_.read() if isinstance(file_, StringIO) else Path(file_).read_text()
        return _settings(yaml.safe_load(text))

    @staticmethod
    def create(obj: Any) -> Any:
        return _settings(obj)

    @staticmethod
    def to_container(cfg: Any, *, resolve: bool = False) -> Any:
        assert not resolve, "references may call functions, so nobody resolves them"
        return cfg

    @staticmethod
    def merge(*configs: Any) -> Any:
        return _settings({key: value for config in configs for key, value in config.items()})


def _settings(value: Any) -> Any:
    return (
        Settings({k: _settings(v) for k, v in value.items()}) if isinstance(value, dict) else value
    )


class StandInCamera:
    def __init__(self, name: str, width: int, height: int) -> None:
        self.name, self.shape, self.drawn = name, (height, width), 0

    def render(self) -> tuple[np.ndarray, np.ndarray]:
        self.drawn += 1
        rgba = np.full((*self.shape, 4), len(self.name), np.uint8)
        # the image is a view that is not contiguous, as calvin_env's
        return rgba[:, :, :3], np.ones(self.shape, np.float32)


class StandInRobot:
    gripper_action = 1


class StandInScene:
    def __init__(self, np_random: np.random.Generator) -> None:
        self.np_random = np_random


class PlayTableSimEnv:
    def __init__(
        self,
        robot_cfg: Any,
        seed: int,
        use_vr: bool,
        bullet_time_step: float,
        cameras: Any,
        show_gui: bool,
        scene_cfg: Any,
        use_scene_info: bool,
        use_egl: bool,
        control_freq: int = 30,
    ) -> None:
        assert int(bullet_time_step // control_freq) == 8
        assert use_scene_info
        assert not use_vr
        assert not show_gui
        self.configs, self.use_egl = (robot_cfg, scene_cfg), use_egl
        self.cameras = [StandInCamera(c["name"], c["width"], c["height"]) for c in cameras.values()]
        self.robot, self.ownsPhysicsClient, self.closed = StandInRobot(), True, False
        self.seed(seed)
        self.scene = StandInScene(self.np_random)
        self.load()

    def seed(self, seed: int | None = None) -> list[int | None]:
        self.np_random = np.random.default_rng(seed)
        return [seed]

    def load(self) -> None:
        self.contacts = 1e-6 * self.scene.np_random.normal()
        self.reset()

    def reset(self, robot_obs: Any = None, scene_obs: Any = None) -> dict[str, Any]:
        self.tcp = np.zeros(6) if robot_obs is None else robot_obs[:6].copy()
        self.scene_obs = np.zeros(24) if scene_obs is None else scene_obs.copy()
        self.tcp[0] += self.contacts
        return self.get_obs()

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], int, bool, dict[str, Any]]:
        assert len(action) == 7
        assert action[-1] in (-1, 1)
        self.robot.gripper_action = action[-1]
        action[:3] *= 0.02  # in place, as some versions do
        action[3:6] *= 0.05
        self.tcp += action[:6]
        self.contacts += 1e-3
        if action[-1] == -1:
            self.scene_obs[1] = np.clip(self.scene_obs[1] - action[1], 0, 0.24)
        elif action[5] > 0:
            self.scene_obs[5] = 1 - self.scene_obs[5]
        return self.get_obs(), 0, False, self.get_info()

    def get_obs(self) -> dict[str, Any]:
        frames = {camera.name: camera.render() for camera in self.cameras}
        images = {"rgb_obs": {f"rgb_{name}": rgb for name, (rgb, _) in frames.items()}}
        return {**images, "depth_obs": {}, **self.get_state_obs()}

    def get_state_obs(self) -> dict[str, Any]:
        robot = np.array([*self.tcp, 0.08, *range(7), self.robot.gripper_action])
        return {"robot_obs": robot, "scene_obs": self.scene_obs.copy()}

    def get_info(self) -> dict[str, Any]:
        doors = {"base__drawer": {"current_state": self.scene_obs[1]}}
        lights = {"led": {"logical_state": self.scene_obs[5]}}
        return {"robot_info": {}, "scene_info": {"doors": doors, "lights": lights}}

    def close(self) -> None:
        self.closed = True


class Tasks:
    def __init__(self, tasks: Any) -> None:
        self.tasks = dict(tasks)

    def get_task_info_for_set(
        self, start_info: Any, end_info: Any, task_filter: set[str]
    ) -> set[str]:
        scenes = start_info["scene_info"], end_info["scene_info"]
        return {
            name
            for name in self.tasks
            if name in task_filter and _achieved(*self.tasks[name], *scenes)
        }


def _achieved(kind: str, *rest: Any) -> bool:
    *arguments, start, end = rest
    if kind == "move_door_rel":
        name, threshold = arguments
        moved = end["doors"][name]["current_state"] - start["doors"][name]["current_state"]
        return bool(0 < threshold < moved or moved < threshold < 0)
    if kind == "toggle_light":
        name, before, after = arguments
        return bool(
            (start["lights"][name]["logical_state"], end["lights"][name]["logical_state"])
            == (before, after)
        )
    return False


def get_git_commit_hash(repo_path: Path) -> str:
    assert (repo_path.parents[2] / ".git").exists(), "not a repo"
    return COMMIT


def install(monkeypatch: pytest.MonkeyPatch, root: Path, task_names: list[str]) -> None:
    """Lay out a checkout of CALVIN below `root`, and let its modules be imported."""
    package = root / "calvin_env" / "calvin_env"
    contents: dict[str, dict[str, Any]] = {
        "calvin_env": {},
        "calvin_env.envs": {},
        "calvin_env.envs.play_table_env": {"PlayTableSimEnv": PlayTableSimEnv},
        "calvin_env.envs.tasks": {"Tasks": Tasks},
        "calvin_env.utils": {},
        "calvin_env.utils.utils": {"get_git_commit_hash": get_git_commit_hash},
        "omegaconf": {"OmegaConf": OmegaConf},
    }
    for name, names in contents.items():
        module = ModuleType(name)
        module.__file__ = str(package.joinpath(*name.split(".")[1:]).with_suffix(".py"))
        vars(module).update(names)
        monkeypatch.setitem(sys.modules, name, module)
    version = metadata.version
    monkeypatch.setattr(
        metadata, "version", lambda name: "3.2.7" if name == "pybullet" else version(name)
    )
    (root / "calvin_env" / ".git").mkdir(parents=True)
    for name, content in _files(task_names).items():
        write_yaml(root / name, content)


def write_yaml(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(content))


def scene(place: str) -> dict[str, Any]:
    """The parts of a `merged_config.yaml` that matter here."""
    cameras = {name: {"name": name, "width": size, "height": size} for name, size in SIZES.items()}
    return {"cameras": cameras, "robot": {"filename": "panda"}, "scene": {"place": place}}


def _files(task_names: list[str]) -> dict[str, Any]:
    models, conf = "calvin_models/conf", "calvin_env/conf"
    own = scene("D")
    targets = {name: TARGETS.get(name, ["never"]) for name in task_names}
    return {
        f"{models}/callbacks/rollout/tasks/new_playtable_tasks.yaml": {"tasks": targets},
        f"{models}/annotations/new_playtable.yaml": {
            name: [f"{name} one", f"{name} two"] for name in task_names
        },
        f"{models}/annotations/new_playtable_validation.yaml": {
            name: [f"now {name}"] for name in task_names
        },
        f"{conf}/scene/calvin_scene_D.yaml": own["scene"],
        f"{conf}/robot/panda.yaml": {"filename": "panda"},
        f"{conf}/robot/panda_longer_finger.yaml": {"filename": "panda_longer_finger"},
        **{
            f"{conf}/cameras/cameras/{name}.yaml": camera for name, camera in own["cameras"].items()
        },
    }
