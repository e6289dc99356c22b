"""How smooth the executed actions of an attempt are."""

import numpy as np

from core.episodes.episode import ActionConvention
from core.episodes.normalization import Normalizer


def jerk(actions: np.ndarray, convention: ActionConvention, normalizer: Normalizer) -> float | None:
    """Return the jerk of a robot that goes exactly where its actions send it.

    The jerk is the third difference of the commanded positions: of the actions themselves if they
    are targets, of their sums if they are movements. Its root mean square is taken over time and
    over all dimensions except grippers, in normalised actions per step cubed. So it is zero for
    constant acceleration, and does not depend on the units of the action; absolute angles that
    jump by a whole turn count as movements.

    actions: (n A), in the units of the dataset, in the order in which they were executed.

    Returns None if there are too few actions, or grippers alone.
    """
    grippers = {gripper.dimension for gripper in convention.grippers}
    moving = [d for d in range(convention.dim) if d not in grippers]
    differences = 2 if convention.mode == "delta" else 3
    if len(actions) <= differences or not moving:
        return None
    normalized = normalizer.affine.forward(actions.astype(np.float64))[:, moving]
    return float(np.sqrt(np.mean(np.diff(normalized, differences, axis=0) ** 2)))
