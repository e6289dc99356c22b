"""The simulated table and its gripper as a MuJoCo model of primitives, and the table's state.

World frame: x to the right, y away from the viewer, z up, in metres and radians. The table's
surface is z = 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from plugins.environments.tabletop.shows import Past, Show

COLOURS = ("red", "green", "blue")
HALF_BLOCK = 0.02
RATE = 20.0  # control steps per second
SUBSTEPS = 10  # physics steps of 5 ms per control step
# motion for an action of 1.0, in metres and radians, as in CALVIN
TRANSLATION, ROTATION = 0.02, 0.05
# limits of the gripper's target positions
LOW, HIGH = np.array([-0.26, -0.24, 0.016]), np.array([0.26, 0.22, 0.25])
FINGER_TRAVEL = 0.04  # maximum distance that each finger moves

DRAWER = np.array([0.15, 0.10])  # the front of the closed drawer
DRAWER_TRAVEL = 0.10
DRAWER_ROOM = np.array([0.15, 0.047])  # the middle of the open part of an open drawer
SLIDER = np.array([-0.03, 0.15])  # the middle of the rail
SLIDER_TRAVEL = 0.05  # maximum distance of the slider from the middle of the rail, on either side
SLIDER_END = 0.045  # distance of the slider from the middle of the rail when an episode starts
BUTTON = np.array([-0.17, 0.10])
# a press switches the lamp when the button is deeper than BUTTON_DOWN; the next press counts only
# after the button has risen above BUTTON_UP
BUTTON_DOWN, BUTTON_UP = 0.008, 0.006

_RGBA = {"red": ".85 .12 .12 1", "green": ".12 .65 .2 1", "blue": ".15 .25 .85 1"}
LAMP_COLOURS = {
    "bright": (1.0, 0.9, 0.25, 1.0),
    "dark": (0.25, 0.25, 0.22, 1.0),
    "red": (1.0, 0.1, 0.1, 1.0),
    "green": (0.1, 1.0, 0.2, 1.0),
    "blue": (0.2, 0.35, 1.0, 1.0),
}

_BLOCK = """
    <body name="{name}" pos="0 0 {half}"><freejoint name="{name}"/>
      <geom name="{name}" type="box" size="{half} {half} {half}" mass=".05" rgba="{rgba}"/>
    </body>"""

_XML = """
<mujoco model="tabletop">
  <compiler angle="radian"/>
  <option timestep="0.005" integrator="implicitfast" cone="elliptic" impratio="10"/>
  <default>
    <geom condim="4" friction="1.2 0.02 0.0001"/>
    <default class="still"><geom rgba=".55 .42 .3 1"/></default>
    <default class="drawer"><geom rgba=".75 .6 .42 1" density="300"/></default>
    <default class="hand"><geom rgba=".3 .3 .33 1" density="300"/></default>
    <default class="finger"><geom type="box" size=".005 .01 .025" rgba=".12 .12 .13 1" mass=".02"/>
      <joint type="slide" range="0 {travel}" damping="20" armature=".02"/></default>
  </default>
  <worldbody>
    <geom name="table" type="box" pos="0 0 -.02" size=".32 .3 .02" rgba=".78 .76 .72 1"
      priority="1" friction=".5 .01 .0001"/>
    {blocks}
    <body pos="{drawer_x} {drawer_y} 0">
      <geom class="still" type="box" pos="0 .07 .065" size=".07 .07 .005"/>
      <geom class="still" type="box" pos="-.066 .07 .03" size=".004 .07 .03"/>
      <geom class="still" type="box" pos=".066 .07 .03" size=".004 .07 .03"/>
      <body name="drawer">
        <joint name="drawer" type="slide" axis="0 -1 0" range="0 {drawer_travel}"
          damping="3" frictionloss=".6"/>
        <geom class="drawer" type="box" pos="0 .06 .005" size=".058 .06 .003"/>
        <geom class="drawer" type="box" pos="0 0 .022" size=".058 .004 .02"/>
        <geom class="drawer" type="box" pos="0 .12 .022" size=".058 .004 .02"/>
        <geom class="drawer" type="box" pos="-.054 .06 .022" size=".004 .06 .02"/>
        <geom class="drawer" type="box" pos=".054 .06 .022" size=".004 .06 .02"/>
        <geom name="handle" class="drawer" type="box" pos="0 -.02 .027" size=".008 .016 .018"
          rgba=".2 .2 .2 1"/>
      </body>
    </body>
    <body pos="{slider_x} {slider_y} 0">
      <geom type="box" pos="0 0 .003" size=".07 .007 .003" rgba=".3 .3 .35 1"
        contype="0" conaffinity="0"/>
      <body name="slider">
        <joint name="slider" type="slide" axis="1 0 0" range="-{slider_travel} {slider_travel}"
          damping="3" frictionloss=".6"/>
        <geom name="slider" type="box" pos="0 0 .034" size=".012 .012 .03" mass=".1"
          rgba=".95 .95 .95 1"/>
      </body>
    </body>
    <body pos="{button_x} {button_y} 0">
      <geom class="still" type="box" pos="0 0 .008" size=".026 .026 .008" rgba=".35 .35 .4 1"/>
      <body name="button" pos="0 0 .03" gravcomp="1">
        <joint name="button" type="slide" axis="0 0 -1" range="0 .012"
          stiffness="60" damping="1" armature=".01"/>
        <geom type="box" size=".015 .015 .012" mass=".02" rgba=".9 .45 .75 1"/>
      </body>
      <geom type="cylinder" pos="0 .09 .02" size=".006 .02" rgba=".35 .35 .4 1"/>
      <geom name="lamp" type="sphere" pos="0 .09 .06" size=".024"/>
    </body>
    <body name="target" mocap="true" pos="0 0 .15"/>
    <body name="hand" pos="0 0 .15" gravcomp="1"><freejoint name="hand"/>
      <geom class="hand" type="box" pos="0 0 .05" size=".052 .016 .012"/>
      <geom class="hand" type="cylinder" pos="0 0 .11" size=".014 .05"/>
      <body name="left" pos="-.005 0 .013" gravcomp="1">
        <joint name="left" class="finger" axis="-1 0 0"/>
        <geom name="left" class="finger"/>
      </body>
      <body name="right" pos=".005 0 .013" gravcomp="1">
        <joint name="right" class="finger" axis="1 0 0"/>
        <geom name="right" class="finger"/>
      </body>
    </body>
  </worldbody>
  <contact><exclude body1="left" body2="right"/></contact>
  <equality><weld body1="target" body2="hand" solref=".02 1" solimp=".95 .99 .001"/></equality>
  <actuator>
    <position joint="left" kp="400" forcerange="-12 12" ctrlrange="0 {travel}"/>
    <position joint="right" kp="400" forcerange="-12 12" ctrlrange="0 {travel}"/>
  </actuator>
</mujoco>"""


@dataclass(frozen=True)
class Block:
    """Where a block is: its centre (3) and its yaw."""

    position: np.ndarray
    yaw: float


@dataclass(frozen=True)
class Start:
    """Where everything is at the start; the fields are the arguments of `Scene.arrange`."""

    tcp: np.ndarray
    yaw: float
    open_gripper: bool
    blocks: Mapping[str, Block]
    fixtures: Mapping[str, float]


@dataclass(frozen=True)
class State:
    """The state of the table; success and the experts' actions depend on nothing else.

    tcp (3), euler (3): position of the point between the fingertips, and roll, pitch and yaw of the
        hand. Roll and pitch are 0 when the hand points down.
    opening: distance between the fingers.
    held: name of the thing that touches both fingers: a block's colour, "handle" or "slider"; None
        if nothing does.
    blocks: {colour: Block}.
    drawer: how far the drawer is open.
    slider: position of the slider on the rail, negative to the left.
    button: how deep the button is pressed.
    lamp: whether the button has switched the lamp on; a show can let the lamp look otherwise.
    past: what has happened since the task began, and is not visible any more.
    """

    tcp: np.ndarray
    euler: np.ndarray
    opening: float
    held: str | None
    blocks: Mapping[str, Block]
    drawer: float
    slider: float
    button: float
    lamp: bool
    past: Past = field(default_factory=Past)

    @property
    def handle(self) -> np.ndarray:
        """Middle of the drawer's handle (3)."""
        return np.array([DRAWER[0], DRAWER[1] - self.drawer - 0.02, 0.027])

    @property
    def post(self) -> np.ndarray:
        """Middle of the slider's post, at the height at which it is pushed (3)."""
        return np.array([SLIDER[0] + self.slider, SLIDER[1], 0.03])


class Scene:
    """The simulated table: set it up, move the gripper, read the state."""

    def __init__(self) -> None:
        import mujoco

        self._mujoco = mujoco
        self.version: str = mujoco.__version__
        self.model: Any = mujoco.MjModel.from_xml_string(_model_xml())
        self.data: Any = mujoco.MjData(self.model)
        self.lamp = False
        self.presses = 0  # since the scene was arranged
        self._armed = True  # False from a press until the button is up again
        self._colour: str | None = None  # the lamp's colour in a show
        geoms = (*COLOURS, "handle", "slider", "left", "right", "lamp")
        self._geom = {name: self.model.geom(name).id for name in geoms}
        self._geom_name = {number: name for name, number in self._geom.items()}
        joints = (*COLOURS, "drawer", "slider", "button", "hand", "left", "right")
        # the index in MuJoCo's qpos at which each joint's values begin
        self._index = {name: int(self.model.joint(name).qposadr[0]) for name in joints}
        # the index in MuJoCo's qvel at which each joint's velocities begin
        self._velocity = {name: int(self.model.joint(name).dofadr[0]) for name in joints}

    def arrange(
        self,
        tcp: np.ndarray,
        yaw: float,
        open_gripper: bool,
        blocks: Mapping[str, Block],
        fixtures: Mapping[str, float],
    ) -> None:
        """Put everything in its place, at rest.

        fixtures: {"drawer", "slider", "lamp"}, as in State.
        """
        self._mujoco.mj_resetData(self.model, self.data)
        q = self.data.qpos
        for colour, block in blocks.items():
            self._set_pose(colour, block.position, block.yaw)
        self._set_pose("hand", tcp, yaw)
        for finger in ("left", "right"):
            q[self._index[finger]] = FINGER_TRAVEL if open_gripper else 0.0
        q[self._index["drawer"]] = fixtures["drawer"]
        q[self._index["slider"]] = fixtures["slider"]
        self.lamp, self._armed = bool(fixtures["lamp"]), True
        self.presses, self._colour = 0, None
        self._command(tcp, np.array([0.0, 0.0, yaw]), open_gripper)
        self._mujoco.mj_step(self.model, self.data, SUBSTEPS)  # contacts settle

    def act(self, action: np.ndarray) -> None:
        """Apply an action (7) for one control step."""
        action = np.clip(np.asarray(action, np.float64), -1, 1)
        # Actions are relative to the present pose. If they were relative to the last target, the
        # target would run ahead of a gripper that is blocked, and the gripper would go on pushing.
        tcp, euler = self._pose()
        position, rotation = tcp + action[:3] * TRANSLATION, euler + action[3:6] * ROTATION
        self._command(np.clip(position, LOW, HIGH), rotation, bool(action[6] > 0))
        self._mujoco.mj_step(self.model, self.data, SUBSTEPS)
        depth = self.data.qpos[self._index["button"]]
        if self._armed and depth > BUTTON_DOWN:
            self.lamp, self._armed = not self.lamp, False
            self.presses += 1
        elif depth < BUTTON_UP:
            self._armed = True

    def perform(self, show: Show, moment: int) -> None:
        """Let the lamp and the fixtures do what a show has for this moment."""
        self._colour = show.colour(moment)
        for fixture, positions in show.motions.items():
            if moment < len(positions):
                self.data.qpos[self._index[fixture]] = positions[moment]
                self.data.qvel[self._velocity[fixture]] = 0.0

    def state(self) -> State:
        """Read the present state."""
        q, index = self.data.qpos, self._index
        tcp, euler = self._pose()
        blocks = {}
        for colour in COLOURS:
            i = index[colour]
            blocks[colour] = Block(q[i : i + 3].copy(), _yaw(q[i + 3 : i + 7]))
        return State(
            tcp=tcp,
            euler=euler,
            opening=float(q[index["left"]] + q[index["right"]]),
            held=self._find_held(),
            blocks=blocks,
            drawer=float(q[index["drawer"]]),
            slider=float(q[index["slider"]]),
            button=float(q[index["button"]]),
            lamp=self.lamp,
        )

    def refresh(self) -> None:
        """Update the poses of all bodies and the lamp's colour, so that the scene can be drawn."""
        self._mujoco.mj_kinematics(self.model, self.data)
        colour = self._colour or ("bright" if self.lamp else "dark")
        self.model.geom_rgba[self._geom["lamp"]] = LAMP_COLOURS[colour]

    def _pose(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the hand's position (3), and the hand's roll, pitch and yaw (3)."""
        i = self._index["hand"]
        w, x, y, z = self.data.qpos[i + 3 : i + 7]
        roll = np.arctan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y))
        pitch = np.arcsin(np.clip(2 * (w * y - z * x), -1, 1))
        yaw = _yaw(self.data.qpos[i + 3 : i + 7])
        return self.data.qpos[i : i + 3].copy(), np.array([roll, pitch, yaw])

    def _set_pose(self, joint: str, position: np.ndarray, yaw: float) -> None:
        i = self._index[joint]
        self.data.qpos[i : i + 3] = position
        self.data.qpos[i + 3 : i + 7] = _quaternion(np.array([0.0, 0.0, yaw]))

    def _command(self, position: np.ndarray, euler: np.ndarray, open_gripper: bool) -> None:
        """Set the target pose of the hand, and whether the fingers open or close."""
        self.data.mocap_pos[0] = position
        self.data.mocap_quat[0] = _quaternion(euler)
        self.data.ctrl[:] = FINGER_TRAVEL if open_gripper else 0.0

    def _find_held(self) -> str | None:
        """Return the name of a geom that touches both fingers, or None."""
        pairs = self.data.contact.geom  # (contacts 2)
        fingers = (self._geom["left"], self._geom["right"])
        left, right = (set(pairs[(pairs == finger).any(axis=1)].ravel()) for finger in fingers)
        held = left & right - {*fingers}
        return next((self._geom_name[geom] for geom in held if geom in self._geom_name), None)


def wrap(angle: Any) -> Any:
    """Bring an angle to [-pi, pi)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


def _model_xml() -> str:
    blocks = "".join(
        _BLOCK.format(name=name, half=HALF_BLOCK, rgba=_RGBA[name]) for name in COLOURS
    )
    return _XML.format(
        blocks=blocks,
        travel=FINGER_TRAVEL,
        drawer_x=DRAWER[0],
        drawer_y=DRAWER[1],
        drawer_travel=DRAWER_TRAVEL,
        slider_x=SLIDER[0],
        slider_y=SLIDER[1],
        slider_travel=SLIDER_TRAVEL,
        button_x=BUTTON[0],
        button_y=BUTTON[1],
    )


def _quaternion(euler: np.ndarray) -> np.ndarray:
    """Return the quaternion (w x y z) of roll, pitch and yaw about the fixed x, y and z axes."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(euler / 2), np.sin(euler / 2)
    return np.array(
        [
            cx * cy * cz + sx * sy * sz,
            sx * cy * cz - cx * sy * sz,
            cx * sy * cz + sx * cy * sz,
            cx * cy * sz - sx * sy * cz,
        ]
    )


def _yaw(quaternion: np.ndarray) -> float:
    """Return the yaw of a quaternion (w x y z)."""
    w, x, y, z = quaternion
    return float(np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)))
