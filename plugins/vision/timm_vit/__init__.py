"""Any timm model as vision encoder."""

from core import Register, hookimpl
from plugins.vision.timm_vit.encoder import TimmConfig, TimmEncoder


@hookimpl
def register_vision_encoders(register: Register) -> None:
    """Register "timm_vit"."""
    register("timm_vit", TimmConfig, TimmEncoder)
