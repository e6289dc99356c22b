"""RoboVLMs' policy head: an LSTM over the window, then two MLPs, for pose and gripper."""

from core import Register, hookimpl
from plugins.heads.lstm.head import LSTMConfig, LSTMHead


@hookimpl
def register_policy_heads(register: Register) -> None:
    """Register "lstm"."""
    register("lstm", LSTMConfig, LSTMHead)
