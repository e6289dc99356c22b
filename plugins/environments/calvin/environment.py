"""CALVIN's play table with its 34 tasks and 1,000 chains; calvin_env must be installed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from core import DataError, did_you_mean
from core.environments import Environment, Observation, Task
from core.episodes import Camera
from plugins.environments.calvin.chains import ROBOT, read_chains, scene_state
from plugins.environments.calvin.conventions import CAMERAS, RATE, make_info
from plugins.environments.calvin.scene import own_scene, read_yaml, scene_of_dataset

STEPS = 360  # control steps per task, as in CALVIN's evaluation
TASKS = "calvin_models/conf/callbacks/rollout/tasks/new_playtable_tasks.yaml"
ANNOTATIONS = "calvin_models/conf/annotations/new_playtable{}.yaml"


@dataclass(frozen=True)
class CalvinConfig:
    """The scene, and how it is drawn."""

    dataset: Path | None = None
    """the training or validation folder of a CALVIN split; its scene and cameras are used. Default:
    scene D of calvin_env, in which CALVIN evaluates.
    """
    use_egl: bool = False
    """whether to draw on a GPU (EGL) instead of the CPU. Textures look different on the GPU and the
    CPU, so choose the device that drew the training data.
    """


class Calvin(Environment):
    """CALVIN's play table with a Franka arm, and CALVIN's conventions, oracle and chains."""

    def __init__(self, config: CalvinConfig) -> None:
        module = _import("calvin_env.envs.play_table_env")
        source = Path(str(module.__file__))
        checkout = source.parents[3]
        if not (checkout / "calvin_env" / ".git").exists():
            raise DataError(
                f"{checkout / 'calvin_env'}: no git clone, which calvin_env must be; "
                "see docs/calvin.md"
            )
        self.tasks = _read_tasks(checkout)
        self._oracle = _import("calvin_env.envs.tasks").Tasks(read_yaml(checkout / TASKS).tasks)
        # the current task, and the state of the world when it began
        self._task: tuple[str, Any] | None = None
        scene = scene_of_dataset(config.dataset) if config.dataset else own_scene(checkout)
        self._env = module.PlayTableSimEnv(
            robot_cfg=scene.robot,
            scene_cfg=scene.scene,
            cameras=scene.cameras,
            seed=0,
            use_vr=False,
            bullet_time_step=240.0,
            show_gui=False,
            use_scene_info=True,
            use_egl=config.use_egl,
            control_freq=int(RATE),
        )
        self._cameras = {camera.name: camera for camera in self._env.cameras}
        # without cameras, calvin_env does not draw images in every step; `observe` draws them
        self._env.cameras = []
        sizes = {name: scene.cameras[calvin_name] for name, calvin_name in CAMERAS.items()}
        self.info = make_info(
            {name: Camera(int(size.height), int(size.width)) for name, size in sizes.items()}
        )
        self.versions = {
            "pybullet": metadata.version("pybullet"),
            "calvin_env": _import("calvin_env.utils.utils").get_git_commit_hash(source),
        }

    def reset(self, task: str, seed: int) -> None:
        """Arrange the start of a chain whose first task is `task`; the seed selects the chain.

        Raises DataError if no chain begins with the task.
        """
        self._check_known(task)
        starts = [chain.start for chain in read_chains() if chain.tasks[0] == task]
        if not starts:
            raise DataError(
                f"no chain of CALVIN's begins with '{task}', so it has no scene of its own; "
                "try chains"
            )
        self._arrange(starts[seed % len(starts)])
        self.proceed(task)

    def begin_chain(self, seed: int) -> Sequence[str]:
        """Arrange the start of the chain with index `seed` modulo 1,000, and return its tasks.

        The seeds 0, 1, 2, ... of an evaluation are thus CALVIN's chains in their order.
        """
        chain = read_chains()[seed % len(read_chains())]
        self._arrange(chain.start)
        return chain.tasks

    def proceed(self, task: str) -> None:
        """Begin a task; the oracle compares later states of the world with the present state.

        Raises DataError for an unknown task.
        """
        self._check_known(task)
        self._task = (task, self._env.get_info())

    def step(self, action: np.ndarray) -> bool:
        """Apply an action (7); return whether the task is done, according to CALVIN's oracle.

        The gripper opens if the last value is above 0, and closes otherwise. Raises DataError for
        an action that has another shape or is not finite.
        """
        if self._task is None:
            raise DataError("calvin has no task yet; reset or begin_chain and proceed come first")
        self.info.action.check(action)
        gripper = 1.0 if action[6] > 0 else -1.0
        _, _, _, info = self._env.step(np.array([*action[:6], gripper]))
        task, before = self._task
        return bool(self._oracle.get_task_info_for_set(before, info, {task}))

    def observe(self) -> Observation:
        """Draw both cameras' images; the proprioception is CALVIN's `robot_obs`."""
        images = {}
        for name, calvin_name in CAMERAS.items():
            image = self._cameras[calvin_name].render()[0]
            images[name] = np.ascontiguousarray(image, dtype=np.uint8)
        return Observation(images, self._env.get_state_obs()["robot_obs"].astype(np.float32))

    def close(self) -> None:
        """Disconnect from the physics server."""
        self._env.close()
        # without this line, calvin_env disconnects again when its environment is freed
        self._env.ownsPhysicsClient = False

    def _check_known(self, task: str) -> None:
        if task not in self.tasks:
            raise DataError(
                f"no task of CALVIN is called '{task}'{did_you_mean(task, list(self.tasks))}"
            )

    def _arrange(self, start: Mapping[str, str | int]) -> None:
        """Load the world again and put everything in its place.

        calvin_env's `reset` clears neither contacts nor the gripper's last action, and its `load`
        drops the blocks at random places. Without the seeds and settings below, an episode would
        therefore depend on earlier episodes.
        """
        self._env.seed(0)
        self._env.scene.np_random = self._env.np_random
        self._env.load()
        self._env.robot.gripper_action = 1
        self._env.reset(robot_obs=np.array(ROBOT), scene_obs=scene_state(start))


def _read_tasks(checkout: Path) -> dict[str, Task]:
    """Read CALVIN's tasks; each has many instructions for training and one for evaluation."""
    training = read_yaml(checkout / ANNOTATIONS.format(""))
    validation = read_yaml(checkout / ANNOTATIONS.format("_validation"))
    return {
        name: Task(name, tuple(training[name]), max_steps=STEPS, held_out=tuple(validation[name]))
        for name in sorted(validation)
    }


def _import(module: str) -> ModuleType:
    try:
        return import_module(module)
    except ImportError as error:
        raise DataError(
            f"environment 'calvin': {error}; install calvin_env as docs/calvin.md says"
        ) from error
