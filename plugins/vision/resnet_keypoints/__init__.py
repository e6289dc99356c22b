"""The vision encoder "resnet_keypoints" of Diffusion Policy and VQ-BeT.

encoder.py   images -> one token per camera
lerobot.py   LeRobot's names of its weights, and the settings that must agree with them
"""

from core import Register, hookimpl
from plugins.vision.resnet_keypoints.encoder import ResNetKeypoints, ResNetKeypointsConfig


@hookimpl
def register_vision_encoders(register: Register) -> None:
    """Register "resnet_keypoints"."""
    register("resnet_keypoints", ResNetKeypointsConfig, ResNetKeypoints)
