"""The names that peft gives to the weights of a layer with an adapter."""


def is_adapter(name: str) -> bool:
    """Whether a weight belongs to an adapter, and not to the layer that it adapts."""
    return ".lora_" in name


def name_without_adapters(name: str) -> str:
    """Return the name that a weight has before adapters are added to the part."""
    return name.replace(".base_layer.", ".")
