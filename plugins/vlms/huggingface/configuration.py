"""The config.json of a model of transformers, which may ask for more than a model."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core import ConfigError, import_library

SUPPORTED = "this component joins models like LLaVA, PaliGemma, Qwen2.5-VL, Idefics3 and SmolVLM"
# What a configuration may choose by name. A name with a slash is that of a repository on the
# Hugging Face hub, whose code transformers would fetch and run.
CHOICES = ("_attn_implementation", "_experts_implementation")


def read_config(source: str, where: str) -> Any:
    """Read a model's config.json.

    Raises ConfigError if there is no config.json, if it asks for code of a repository, or if it
    describes no vision-language model.
    """
    with as_config_error(
        f"{where}: '{source}' is no folder of a model that transformers knows, nor does the hub "
        "give it"
    ):
        config = load_config(source)
    auto = import_library("transformers.models.auto.modeling_auto")
    if config.model_type not in auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        raise ConfigError(
            f"{where}: '{source}' is a '{config.model_type}', which is no vision-language model; "
            f"{SUPPORTED}"
        )
    return config


def load_config(source: str | Path) -> Any:
    """Load a configuration, as transformers does.

    Raises ConfigError if it asks for code of a repository, and whatever transformers raises.
    """
    transformers = import_library("transformers", extra="vlm")
    config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
    for part in _parts_of(config):
        for choice in CHOICES:
            name = str(getattr(part, choice, None))
            if "/" in name:
                key = choice.removeprefix("_")
                raise ConfigError(
                    f"'{source}': its config.json asks for {key} = {name[:80]!r}, whose code "
                    f"would be fetched and run; remove {key}"
                )
    return config


@contextmanager
def as_config_error(what: str) -> Iterator[None]:
    """Turn any error of transformers into a ConfigError of one line that begins with `what`."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:  # transformers can raise any error here, and so can faulty files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{what}: {reason[:300]}") from error


def _parts_of(config: Any) -> Iterator[Any]:
    """Yield a configuration, and those of the vision encoder, language model, ... in it."""
    yield config
    for name in config.sub_configs:
        if (part := getattr(config, name, None)) is not None:
            yield from _parts_of(part)
