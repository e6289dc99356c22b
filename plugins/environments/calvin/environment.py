"""CALVIN (https://github.com/mees/calvin, MIT licence): its 34 tasks and 1,000 chains in an
installed calvin_env.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from core import DataError, did_you_mean
from core.environments import Environment, Observation, Task
from core.episodes import ActionConvention, Camera, Gripper, StoreInfo

RATE, STEPS = 30.0, 360  # Hz; control steps per task, as in CALVIN's evaluation
CAMERAS = {"static": "static", "wrist": "gripper"}  # our names, calvin_env's
TASKS = "calvin_models/conf/callbacks/rollout/tasks/new_playtable_tasks.yaml"
ANNOTATIONS = "calvin_models/conf/annotations/new_playtable{}.yaml"
CHAINS = Path(__file__).with_name("chains.txt")
START = ("led", "lightbulb", "slider", "drawer", "red_block", "blue_block", "pink_block")
PROPRIO = (
    *("tcp_x", "tcp_y", "tcp_z", "roll", "pitch", "yaw", "gripper_opening"),
    *(f"joint_{number}" for number in range(1, 8)),
    "gripper_action",
)
# where chains begin: `robot_obs` as PROPRIO names it, and places of the blocks in metres
ROBOT = (
    *(0.02586889, -0.2313129, 0.5712808, 3.09045411, -0.02908596, 1.50013585, 0.07999963),
    *(-1.21779124, 1.03987629, 2.11978254, -2.34205014, -0.87015899, 1.64119093, 0.55344928, 1.0),
)
SLIDER = {
    "slider_left": (-2.40851662e-01, 9.24044687e-02, 4.60990009e-01),
    "slider_right": (7.03416330e-02, 9.24044687e-02, 4.60990009e-01),
}
TABLE = (
    (5.00000896e-02, -1.20000177e-01, 4.59990009e-01),
    (2.29995412e-01, -1.19995140e-01, 4.59990010e-01),
)


@dataclass(frozen=True)
class CalvinConfig:
    """Which scene, and how it is drawn."""

    dataset: Path | None = None
    """a CALVIN split's training or validation folder, whose scene and cameras to take; unset for
    calvin_env's own scene D, in which CALVIN evaluates.
    """
    use_egl: bool = False
    """draw on a GPU by EGL instead of on the CPU; textures differ, so draw as the training data
    were drawn.
    """


@dataclass(frozen=True)
class Chain:
    """One chain of CALVIN's evaluation.

    start: where the blocks, the slider and the drawer are, and which lights are on.
    tasks: five names, in the order in which they are to be done.
    """

    start: Mapping[str, str | int]
    tasks: tuple[str, ...]


class Calvin(Environment):
    """CALVIN's play table with a Franka arm, its conventions, its oracle and its chains."""

    def __init__(self, config: CalvinConfig) -> None:
        module = _imported("calvin_env.envs.play_table_env")
        source = Path(str(module.__file__))
        checkout = source.parents[3]
        if not (checkout / "calvin_env" / ".git").exists():
            raise DataError(
                f"{checkout / 'calvin_env'}: no git clone, which calvin_env must be; see docs/calvin.md"
            )
        self.tasks = _tasks(checkout)
        self._oracle = _imported("calvin_env.envs.tasks").Tasks(_yaml(checkout / TASKS).tasks)
        self._asked: tuple[str, Any] | None = (
            None  # the task, and the state of the world when it was asked for
        )
        scene = _scene(config.dataset, checkout)
        self._env = _world(module, scene, config.use_egl)
        self._cameras = {camera.name: camera for camera in self._env.cameras}
        self._env.cameras = []  # calvin_env would draw all of them in every step, looked at or not
        self.info = _info(scene)
        self.versions = {
            "pybullet": metadata.version("pybullet"),
            "calvin_env": _imported("calvin_env.utils.utils").get_git_commit_hash(source),
        }

    def reset(self, task: str, seed: int) -> None:
        """Arrange the start of a chain of CALVIN's that begins with `task`; raises DataError where
        none does.
        """
        self._check_known(task)
        starts = [chain.start for chain in read_chains() if chain.tasks[0] == task]
        if not starts:
            raise DataError(
                f"no chain of CALVIN's begins with '{task}', so it has no scene of its own; try chains"
            )
        self._arrange(starts[seed % len(starts)])
        self.proceed(task)

    def begin_chain(self, seed: int) -> Sequence[str]:
        """Arrange chain number `seed` modulo 1,000: evaluation seeds count CALVIN's chains in their
        order from 0.
        """
        chain = read_chains()[seed % len(read_chains())]
        self._arrange(chain.start)
        return chain.tasks

    def proceed(self, task: str) -> None:
        """Ask for a task; the oracle compares what follows with the world as it is now. Raises
        DataError for others.
        """
        self._check_known(task)
        self._asked = (task, self._env.get_info())

    def step(self, action: np.ndarray) -> bool:
        """Apply an action (7), its gripper taken as open above 0 and closed else; return what
        CALVIN's oracle says.

        Raises DataError for an action of another shape or that is not finite.
        """
        if self._asked is None:
            raise DataError("calvin has no task yet; reset or begin_chain and proceed come first")
        self.info.action.check(action)
        gripper = 1.0 if action[6] > 0 else -1.0
        _, _, _, info = self._env.step(np.array([*action[:6], gripper]))
        task, before = self._asked
        return bool(self._oracle.get_task_info_for_set(before, info, {task}))

    def observe(self) -> Observation:
        """Draw both cameras; proprioception is CALVIN's `robot_obs`."""
        frames = {name: self._cameras[theirs].render()[0] for name, theirs in CAMERAS.items()}
        images = {
            name: np.ascontiguousarray(frame, dtype=np.uint8) for name, frame in frames.items()
        }
        return Observation(images, self._env.get_state_obs()["robot_obs"].astype(np.float32))

    def close(self) -> None:
        """Disconnect from the physics server."""
        self._env.close()
        self._env.ownsPhysicsClient = (
            False  # calvin_env disconnects a second time when it is collected
        )

    def _check_known(self, task: str) -> None:
        if task not in self.tasks:
            raise DataError(
                f"no task of CALVIN is called '{task}'{did_you_mean(task, list(self.tasks))}"
            )

    def _arrange(self, start: Mapping[str, str | int]) -> None:
        """Load the world anew and put everything in its place.

        calvin_env's reset alone keeps contacts and the gripper's last action, and its load drops
        the blocks at random places first: an episode would depend on those before it.
        """
        self._env.seed(0)
        self._env.scene.np_random = self._env.np_random
        self._env.load()
        self._env.robot.gripper_action = 1
        self._env.reset(robot_obs=np.array(ROBOT), scene_obs=scene_state(start))


@cache
def read_chains() -> tuple[Chain, ...]:
    """Return the 1,000 chains in their order, the result of CALVIN's `get_sequences(1000)`, which
    takes minutes.
    """
    lines = CHAINS.read_text(encoding="utf-8").splitlines()
    return tuple(_chain(line) for line in lines if not line.startswith("#"))


def _chain(line: str) -> Chain:
    start, _, tasks = line.partition(":")
    places = [int(word) if word.isdigit() else word for word in start.split()]
    return Chain({**dict(zip(START, places, strict=True)), "grasped": 0}, tuple(tasks.split()))


def scene_state(start: Mapping[str, str | int]) -> np.ndarray:
    """Return CALVIN's `scene_obs` (24) float64 of a chain's start: slider, drawer, button, switch,
    lights, three poses.

    What the start leaves open, the blocks' turns and their order on the table, is drawn from a seed
    that is a hash of the start: the numbers of CALVIN's `get_env_state_for_initial_condition`.
    """
    random = np.random.RandomState(_fnv1(str(start.values())))
    spots = [*TABLE]
    random.shuffle(spots)
    turns = random.uniform(np.pi / 2 - np.pi / 8, np.pi / 2 + np.pi / 8, size=3)
    both = start["red_block"] == start["blue_block"] == "table"
    on_table = {
        "red_block": spots[0],
        "blue_block": spots[1] if both else spots[0],
        "pink_block": spots[1],
    }
    slider, drawer = 0.28 * (start["slider"] == "left"), 0.22 * (start["drawer"] == "open")
    state = [slider, drawer, 0.0, 0.088 * int(start["lightbulb"]), start["lightbulb"], start["led"]]
    for (block, spot), turn in zip(on_table.items(), turns, strict=True):
        state += [*SLIDER.get(str(start[block]), spot), 0.0, 0.0, turn]
    return np.array(state, np.float64)


def _fnv1(text: str) -> int:
    """Hash as pyhash's fnv1_32 does: FNV-1 over UTF-16 from 0."""
    value = 0
    for byte in text.encode("utf-16-le"):
        value = (value * 0x01000193 % 2**32) ^ byte
    return value


def _info(scene: Any) -> StoreInfo:
    cameras = {name: scene.cameras[theirs] for name, theirs in CAMERAS.items()}
    return info_of(
        {name: Camera(int(camera.height), int(camera.width)) for name, camera in cameras.items()}
    )


def info_of(cameras: Mapping[str, Camera]) -> StoreInfo:
    """CALVIN's conventions, in its simulator and in its data alike."""
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
        ),
        proprio=PROPRIO,
        origin="CALVIN (https://github.com/mees/calvin), MIT licence",
    )


def _tasks(checkout: Path) -> dict[str, Task]:
    """Return CALVIN's tasks with its phrasings: many for training, one for evaluation."""
    training, validation = (
        _yaml(checkout / ANNOTATIONS.format(split)) for split in ("", "_validation")
    )
    return {
        name: Task(name, tuple(training[name]), max_steps=STEPS, held_out=tuple(validation[name]))
        for name in sorted(validation)
    }


def _scene(dataset: Path | None, checkout: Path) -> Any:
    """Return calvin_env's configuration of a scene with the two cameras we show."""
    if dataset is not None:
        scene = _yaml(dataset / ".hydra" / "merged_config.yaml")
        # without the tactile camera, which needs one more package
        scene.cameras = {name: scene.cameras[name] for name in CAMERAS.values()}
        return scene
    conf = checkout / "calvin_env" / "conf"
    merge = _imported("omegaconf").OmegaConf.merge
    return merge(
        {"data_path": "data", "scene": _yaml(conf / "scene" / "calvin_scene_D.yaml")},
        {
            "robot": merge(
                *(
                    _yaml(conf / "robot" / f"{name}.yaml")
                    for name in ("panda", "panda_longer_finger")
                )
            )
        },
        {
            "cameras": {
                name: _yaml(conf / "cameras" / "cameras" / f"{name}.yaml")
                for name in CAMERAS.values()
            }
        },
    )


def _world(module: ModuleType, scene: Any, use_egl: bool) -> Any:
    return module.PlayTableSimEnv(
        robot_cfg=scene.robot,
        scene_cfg=scene.scene,
        cameras=scene.cameras,
        seed=0,
        use_vr=False,
        bullet_time_step=240.0,
        show_gui=False,
        use_scene_info=True,
        use_egl=use_egl,
        control_freq=int(RATE),
    )


def _yaml(file: Path) -> Any:
    if not file.is_file():
        raise DataError(
            f"{file}: not found; docs/calvin.md says which files environment 'calvin' reads"
        )
    return _imported("omegaconf").OmegaConf.load(file)


def _imported(module: str) -> ModuleType:
    try:
        return import_module(module)
    except ImportError as error:
        raise DataError(
            f"environment 'calvin': {error}; install calvin_env as docs/calvin.md says"
        ) from error
