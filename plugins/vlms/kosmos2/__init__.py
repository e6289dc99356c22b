"""Kosmos-2 (Peng et al. 2023) as three parts: the vision-language model of RoboVLMs' policy."""

from core import Register, hookimpl
from plugins.vlms.kosmos2.backbone import Kosmos2Backbone, Kosmos2BackboneConfig
from plugins.vlms.kosmos2.text import Kosmos2Text, Kosmos2TextConfig
from plugins.vlms.kosmos2.vision import Kosmos2Vision, Kosmos2VisionConfig


@hookimpl
def register_vision_encoders(register: Register) -> None:
    """Register "kosmos2_vision"."""
    register("kosmos2_vision", Kosmos2VisionConfig, Kosmos2Vision)


@hookimpl
def register_text_encoders(register: Register) -> None:
    """Register "kosmos2_text"."""
    register("kosmos2_text", Kosmos2TextConfig, Kosmos2Text)


@hookimpl
def register_backbones(register: Register) -> None:
    """Register "kosmos2"."""
    register("kosmos2", Kosmos2BackboneConfig, Kosmos2Backbone)
