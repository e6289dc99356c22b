"""Published weights, from which parts of a policy may start, and the checkpoints of runs."""

from core.weights.lerobot import LeRobotFiles as LeRobotFiles
from core.weights.pretrained import (
    NameMap as NameMap,
    Pretrained as Pretrained,
    carry_rows as carry_rows,
    check_state_dict as check_state_dict,
    fill as fill,
    filter_keys as filter_keys,
    strip_prefix as strip_prefix,
)
