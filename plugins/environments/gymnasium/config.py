"""What a recipe says about an environment of Gymnasium: what Gymnasium itself has no words for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Gt

# the same words as in core.episodes.ActionConvention
Mode = Literal["absolute", "delta"]
Frame = Literal["world", "base", "tool", "joint"]
Scaling = Literal["clipped", "normalised", "raw"]
RENDER = "render"  # in place of a key of the observation: the picture that env.render() returns
REWARD, TERMINATED = "reward", "terminated"  # in place of a key of the info


@dataclass(frozen=True)
class GymnasiumConfig:
    """A registered environment, and what its observations, actions and info mean.

    Keys of nested observations and infos are joined by dots: "pixels.top".
    """

    id: str
    """the environment's id, as for gymnasium.make: "gym_pusht/PushT-v0"."""
    instructions: tuple[str, ...]
    """what the robot is told; several phrasings take turns."""
    mode: Mode
    """whether an action is a target ("absolute"), or a movement, velocity or force ("delta")."""
    module: str = ""
    """module to import first, which registers the id: "gym_pusht"; "": none."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """further arguments of gymnasium.make: {obs_type = "pixels_agent_pos"}."""
    wrappers: tuple[str, ...] = ()
    """wrappers to put round the environment, the first one innermost, each as "MODULE:CLASS"; each
    is called with the environment alone.
    """
    held_out: tuple[str, ...] = ()
    """phrasings for evaluation alone."""
    cameras: Mapping[str, str] = field(default_factory=lambda: {"front": RENDER})
    """{name for the policy: key of the observation}; "render" stands for what env.render() draws,
    and "" for the whole observation.
    """
    proprio: tuple[str, ...] = ()
    """keys of the observation whose numbers, one after the other, are the proprioception."""
    proprio_units: tuple[str, ...] = ()
    """units of the proprioception: one for all numbers, or one for each; empty: not known."""
    action_names: tuple[str, ...] = ()
    """one name for each number of an action; default: action_0, action_1, ..."""
    action_units: tuple[str, ...] = ()
    """units of an action as the environment takes it: one for all numbers, or one for each."""
    frame: Frame = "world"
    """the coordinates of an action."""
    scaling: Scaling = "clipped"
    """"clipped": actions are as the environment takes them, and clipped to its bounds;
    "normalised": -1 and 1 are its bounds; "raw": as it takes them, not clipped, for an environment
    whose bounds are not true.
    """
    binary: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """two-state dimensions: {name of the dimension: [closed, open]}, values as `scaling` has them.
    """
    success: str = "is_success"
    """what says that the task is done: a key of the info, "reward" or "terminated"; "": nothing,
    and only scores count.
    """
    threshold: float | None = None
    """the task is done when `success` is at least this number; default: when it is true."""
    score: str = REWARD
    """what measures how good a step is: "reward" or a key of the info; "": nothing does."""
    metrics: tuple[str, ...] = ()
    """further numbers of the info that an evaluation reports: ["coverage"] of PushT."""
    max_steps: Annotated[int, Gt(0)] | None = None
    """control steps that an attempt may take; default: what the environment is registered with."""
    fps: Annotated[float, Gt(0)] | None = None
    """control steps per second; default: the environment's metadata["render_fps"]."""
    expert: str = ""
    """what demonstrates the task, as "MODULE:CLASS": called with the environment, it gives a
    function without arguments that returns an action as the environment takes it. Default: the
    expert that Joinery has for the id, if any; "none": no expert.
    """

    def __post_init__(self) -> None:
        if not self.instructions:
            raise ValueError("instructions is empty; give at least one phrasing")
        if not self.cameras:
            raise ValueError('cameras is empty; name a picture: cameras = {front = "render"}')
        if self.threshold is None and self.success == REWARD:
            raise ValueError(
                'success is "reward", and threshold is not set; say from which reward on the task '
                "is done"
            )
        if self.threshold is not None and self.success in ("", TERMINATED):
            raise ValueError(f'threshold has no effect with success = "{self.success}"; drop it')
        for name, (closed, opened) in self.binary.items():
            if closed == opened:
                raise ValueError(f"binary.{name}: closed and open are both {closed}; correct one")
