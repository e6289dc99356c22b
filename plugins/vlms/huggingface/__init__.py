"""Vision-language models of transformers, each as three parts."""

from core import Register, hookimpl
from plugins.vlms.huggingface.backbone import BackboneConfig, HuggingFaceBackbone
from plugins.vlms.huggingface.text import HuggingFaceText, TextConfig
from plugins.vlms.huggingface.vision import HuggingFaceVision, VisionConfig


@hookimpl
def register_vision_encoders(register: Register) -> None:
    """Register "huggingface"."""
    register("huggingface", VisionConfig, HuggingFaceVision)


@hookimpl
def register_text_encoders(register: Register) -> None:
    """Register "huggingface"."""
    register("huggingface", TextConfig, HuggingFaceText)


@hookimpl
def register_backbones(register: Register) -> None:
    """Register "huggingface"."""
    register("huggingface", BackboneConfig, HuggingFaceBackbone)
