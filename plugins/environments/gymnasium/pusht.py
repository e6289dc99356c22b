"""An expert for PushT: it goes round the T, pushes an edge of it, and plans anew at every step.

PushT (Chi et al., "Diffusion Policy", 2023) has no friction between pusher and T, and whatever
is pushed stops at once. So a push acts along the normal of the edge that it meets, and the T
follows as a rigid body of its mass and moment of inertia. The expert predicts where each of about
sixty pushes would bring the T, and chooses by the error that is left and by the length of the way
round the T. It sees the simulator's own state, keeps none, and learns nothing.

Lengths are pixels of the table, which has 512 x 512 of them.
"""

from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise
from typing import Any

import numpy as np

TABLE = (8.0, 504.0)  # where the centre of the pusher may be, in both directions
RADIUS = 15.0  # of the pusher
CLEARANCE = 4.0  # between pusher and T on the way round
NEAR = 8.0  # a pusher whose gap to the T is smaller may push from where it is
SPACING = 8.0  # between two pushes on an edge
PUSH = (0.25, 0.25, 0.5, *[1.0] * 5, *[2.0] * 5, *[4.0] * 5, *[8.0] * 12)  # of a predicted push
CHANGE = 4.0  # steps that any push takes, beside its way
CLOSE = 0.5  # an error that need not become smaller
SPEED = 32.0  # pixels that the pusher moves at most in a step
# A step of a tenth of a second moves the pusher by REACH of what is left to its target, and by
# COAST seconds of its velocity: its controller has the gains 100 and 20.
BRISKNESS = 0.75  # share of the way to its goal that the pusher makes in a step
REACH, COAST = 1 - 2 / np.e, 0.1 / np.e


@dataclass(frozen=True)
class Pushes:
    """Straight pushes that the pusher could make.

    start: (N 2) centre of the pusher, at a distance `gap` (N) from the T.
    direction: (N 2) unit vectors, against the outward normal of the T's edge.
    """

    start: np.ndarray
    gap: np.ndarray
    direction: np.ndarray


class PushTExpert:
    """Calls return where the pusher should go, (2) float32 in pixels.

    environment: a `gym_pusht/PushT-v0`.
    """

    def __init__(self, environment: Any) -> None:
        self._env = environment.unwrapped
        self._shapely = import_module("shapely")

    def __call__(self) -> np.ndarray:
        """Return the target for the present state."""
        pusher = np.array(self._env.agent.position)
        tee = self._tee()
        pushes = self._pushes(tee, pusher)
        now, left, depth = predict(self._env.block, self._env.goal_pose, pushes)
        ways, lengths = self._ways(tee, pusher, pushes)
        steps = CHANGE + (lengths + depth) / SPEED
        best = int(np.argmax(np.log(now / left.clip(CLOSE)) / steps))
        if lengths[best] == 0:
            goal = pusher + pushes.direction[best] * min(pushes.gap[best] + depth[best], SPEED)
        else:
            goal = _along(ways[best], SPEED)
        return self._target(pusher, goal)

    def _target(self, pusher: np.ndarray, goal: np.ndarray) -> np.ndarray:
        """Return the target that brings the pusher most of the way to a goal in one step."""
        velocity = np.array(self._env.agent.velocity)
        target = pusher + (BRISKNESS * (goal - pusher) - COAST * velocity) / REACH
        return np.asarray(np.clip(target, *TABLE), np.float32)

    def _tee(self) -> Any:
        """Return the outline of the T, a polygon of shapely with its corners counter-clockwise."""
        block = self._env.block
        parts = [
            self._shapely.Polygon([block.local_to_world(corner) for corner in shape.get_vertices()])
            for shape in block.shapes
        ]
        # the parts share an edge, and rounding would leave a slit
        union = self._shapely.union_all([part.buffer(1e-3, join_style="mitre") for part in parts])
        return self._shapely.geometry.polygon.orient(union.simplify(0.1))

    def _pushes(self, tee: Any, pusher: np.ndarray) -> Pushes:
        """Return the pushes on all edges, after one from where the pusher is if it is near."""
        corners = np.array(tee.exterior.coords)
        starts, directions = [], []
        for first, last in pairwise(corners):
            length = float(np.linalg.norm(last - first))
            along = (last - first) / length
            inward = np.array([-along[1], along[0]])
            count = max(1, round(length / SPACING))
            places = (np.arange(count) + 0.5)[:, None] * length / count
            starts.append(first + places * along - (RADIUS + CLEARANCE) * inward)
            directions.append(np.tile(inward, (count, 1)))
        start, direction = np.concatenate(starts), np.concatenate(directions)
        # in the T's two angles, the other edge is nearer
        free = self._shapely.distance(tee, self._shapely.points(start)) > RADIUS + CLEARANCE - 0.1
        free &= ((start > TABLE[0]) & (start < TABLE[1])).all(axis=-1)
        start, direction = start[free], direction[free]
        gap = np.full(len(start), CLEARANCE)
        point = self._shapely.Point(pusher)
        if (own_gap := tee.distance(point) - RADIUS) < NEAR:
            nearest = self._shapely.shortest_line(point, tee).coords[-1]
            towards = (np.array(nearest) - pusher) / max(1e-6, own_gap + RADIUS)
            start = np.concatenate([pusher[None], start])
            direction = np.concatenate([towards[None], direction])
            gap = np.concatenate([[own_gap], gap])
        return Pushes(start, gap, direction)

    def _ways(
        self, tee: Any, pusher: np.ndarray, pushes: Pushes
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Return the shortest way round the T to each push, points (n 2), and its length.

        It is the shortest path in the graph of the corners that see each other.
        """
        shapely, csgraph = self._shapely, import_module("scipy.sparse.csgraph")
        keep_out = tee.buffer(RADIUS + CLEARANCE - 1, join_style="mitre")
        corners = np.array(tee.buffer(RADIUS + CLEARANCE, join_style="mitre").exterior.coords)[:-1]
        corners = corners[((corners > TABLE[0]) & (corners < TABLE[1])).all(axis=-1)]
        out = pusher
        if keep_out.contains(shapely.Point(pusher)):  # step back from the T first
            nearest = shapely.shortest_line(shapely.Point(pusher), keep_out.exterior).coords[-1]
            out = pusher + (np.array(nearest) - pusher) * 1.05
        nodes = np.concatenate([out[None], corners, pushes.start])
        first, ways = 1 + len(corners), []
        ends = np.stack(np.broadcast_arrays(nodes[:first, None], nodes[None]), axis=-2)
        hidden = shapely.intersects(keep_out, shapely.linestrings(ends))
        length = np.zeros((len(nodes), len(nodes)))  # 0: no edge
        length[:first] = np.where(hidden, 0, np.linalg.norm(ends[:, :, 1] - ends[:, :, 0], axis=-1))
        total, before = csgraph.shortest_path(length, indices=0, return_predecessors=True)
        for node in range(first, len(nodes)):
            way = [node]
            while before[way[-1]] >= 0:
                way.append(int(before[way[-1]]))
            ways.append(np.concatenate([pusher[None], nodes[way[::-1]]]))
        lengths = total[first:] + float(np.linalg.norm(out - pusher))
        lengths[(pushes.start == pusher).all(axis=-1)] = 0
        return ways, lengths


def predict(block: Any, goal: np.ndarray, pushes: Pushes) -> tuple[float, np.ndarray, np.ndarray]:
    """Return the error now, what each push leaves of it (N), and how far (N) it goes for that.

    An error weighs the distance between the centres of mass, and the angle by the radius of
    gyration, as the kinetic energy of the T does; so it is in pixels.
    """
    mass, inertia = block.mass, block.moment
    offset = np.array(block.center_of_gravity)
    gyration = (inertia / mass) ** 0.5
    goal_centre = np.array(goal[:2]) + _turned(offset, goal[2])
    centre = np.tile(np.array(block.local_to_world(block.center_of_gravity)), (len(pushes.gap), 1))
    angle = np.full(len(pushes.gap), block.angle)
    normal = pushes.direction.copy()
    pusher = pushes.start + pushes.gap[:, None] * pushes.direction

    def error() -> np.ndarray:
        turn = (angle - goal[2] + np.pi) % (2 * np.pi) - np.pi
        square = ((centre - goal_centre) ** 2).sum(axis=-1) + (gyration * turn) ** 2
        return np.asarray(np.sqrt(square))

    least = start = error()
    depth, gone = np.zeros(len(angle)), 0.0
    for step in PUSH:
        arm = pusher + RADIUS * normal - centre
        lever = arm[:, 0] * normal[:, 1] - arm[:, 1] * normal[:, 0]
        advance = step * (normal * pushes.direction).sum(axis=-1).clip(0)
        impulse = advance / (1 / mass + lever**2 / inertia)
        turn = impulse * lever / inertia
        centre = centre + impulse[:, None] / mass * normal
        angle = angle + turn
        normal = _turned(normal, turn)
        pusher = pusher + step * pushes.direction
        gone += step
        left = error()
        depth = np.where(left < least, gone, depth)
        least = np.minimum(left, least)
    return float(start[0]), least, depth


def _turned(vectors: np.ndarray, angle: Any) -> np.ndarray:
    """Return vectors (... 2), turned by an angle (...) in radians."""
    cos, sin = np.cos(angle), np.sin(angle)
    x, y = vectors[..., 0], vectors[..., 1]
    return np.stack([cos * x - sin * y, sin * x + cos * y], axis=-1)


def _along(way: np.ndarray, distance: float) -> np.ndarray:
    """Return the point of a way (n 2) at a distance from its beginning, its end at most."""
    place = way[-1]
    for first, last in pairwise(way):
        length = float(np.linalg.norm(last - first))
        if length > distance:
            place = first + (last - first) / length * distance
            break
        distance -= length
    return np.asarray(place)
