"""A vision-language model of transformers, split into vision, words and language model.

A weight's name in the base model decides which of three parts the weight belongs to. The token
embedding belongs to "text", the rest of the language model to "backbone", and all else to "vision".
The output layer, which turns hidden states into scores of words, is either the token embedding or a
fourth part.
"""

import inspect
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from core import ConfigError, import_library
from core.weights import Pretrained, check_state_dict
from plugins.vlms.huggingface.configuration import (
    SUPPORTED,
    as_config_error,
    load_config,
    read_config,
)

Role = Literal["vision", "text", "backbone", "output"]
SECTION: dict[Role, str] = {
    "vision": "vision_encoder",
    "text": "text_encoder",
    "backbone": "backbone",
    "output": "text_encoder",
}
# a language model with arguments that are not listed here needs information that
# embeddings do not contain
USUAL_ARGUMENTS = (
    "input_ids",
    "inputs_embeds",
    "attention_mask",
    "position_ids",
    "cache",
    "past_key_values",
    "use_cache",
)
# Every part is built on the CPU, whatever the default device is; core later moves the whole policy.
CPU = torch.device("cpu")
# a tensor's name in a checkpoint of RoboVLMs is this prefix plus Hugging Face's name
ROBOVLMS_PREFIX = "model.backbone."


@dataclass(frozen=True)
class VLMLayout:
    """A vision-language model of transformers, and the names of its pieces.

    full: the PreTrainedModel.
    base: the same model without the output layer.
    prefix: a weight's published name is this prefix plus its name in the base model.
    decoder: name of the language model in the base model.
    embedding: name of the token embedding in the base model.
    output: name of the output layer in the full model; "" if the output layer is the embedding, or
        if there is no output layer.
    """

    full: Any
    base: Any
    prefix: str
    decoder: str
    embedding: str
    output: str

    @property
    def language_model(self) -> Any:
        """The language model, a PreTrainedModel."""
        return self.base.get_submodule(self.decoder)

    def role_of(self, name: str) -> Role:
        """Return the part to which a weight of the base model belongs."""
        if name.startswith(self.embedding + "."):
            return "text"
        return "backbone" if name.startswith(self.decoder + ".") else "vision"


@dataclass(frozen=True)
class VLMPart:
    """One part of a vision-language model; no other part shares its weights.

    prefix: a weight's published name is this prefix plus its name in the module.
    description: what config.json says about the part.
    config: configuration of the whole model.
    tied: whether the output layer is the token embedding.
    """

    module: Any
    prefix: str
    description: dict[str, Any]
    config: Any
    tied: bool

    def publish(self) -> dict[str, Tensor]:
        """Return the part's tensors under their published names."""
        return {self.prefix + name: tensor for name, tensor in self.module.state_dict().items()}

    def load(self, role: Role, weights: Pretrained) -> None:
        """Load the role's tensors from a source, strictly.

        The module uses the loaded tensors themselves: as no other part uses them, no copy is
        needed.
        """
        tensors = weights.once(load_parts).pop(role, {})
        check_state_dict(self.publish(), tensors, weights.source)
        state = {name.removeprefix(self.prefix): tensor for name, tensor in tensors.items()}
        self.module.load_state_dict(state, assign=True)


def build_part(source: str, role: Role) -> VLMPart:
    """Build one part, with random weights, of a model that a folder or the hub describes.

    Raises ConfigError if there is no such model, or if it cannot be split into the parts.
    """
    where = f"{SECTION[role]}.model"
    config = read_config(source, where)
    # On the meta device, weights take no memory.
    with as_config_error(f"{where}: transformers cannot build '{source}'"), torch.device("meta"):
        full = _auto_class().from_config(
            config, dtype=torch.get_default_dtype(), trust_remote_code=False
        )
    layout = split_vlm(full, f"{where}: '{source}'")
    if role == "output" and not layout.output:
        raise ConfigError(
            f"text_encoder.output: '{source}' has no output layer of its own; leave it out"
        )
    description = _describe(full, role)
    tied = not layout.output and full.get_output_embeddings() is not None
    root, module, prefix = _cut_out(layout, role)
    root.to_empty(device=CPU)
    with CPU:
        # This also fills the buffers that no state dict holds, rotary frequencies for example.
        root.initialize_weights()
    return VLMPart(module, prefix, description, config, tied)


def split_vlm(full: Any, what: str) -> VLMLayout:
    """Find the pieces of a model.

    what: the model's name in error messages.

    Raises ConfigError if the model lacks one of the pieces.
    """
    base = full.base_model
    names = {id(module): name for name, module in base.named_modules()}
    try:
        decoder, embedding = base.get_decoder(), base.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        decoder = embedding = None
    layout = VLMLayout(
        full=full,
        base=base,
        prefix="" if base is full else f"{full.base_model_prefix}.",
        decoder=names.get(id(decoder), ""),
        embedding=names.get(id(embedding), ""),
        output=_untied_output(full, embedding),
    )
    if reason := _unsupported(layout):
        raise ConfigError(f"{what} is a {type(full).__name__} and {reason}; {SUPPORTED}")
    return layout


def repeated_blocks(module: nn.Module) -> list[nn.Module]:
    """Return the layers of a network: the longest list of modules in it."""
    lists = [list(child) for child in module.modules() if isinstance(child, nn.ModuleList)]
    return max(lists, key=len, default=[])


def load_parts(path: Path) -> dict[Role, dict[str, Tensor]]:
    """Load a folder as transformers does, and sort its tensors: {role: {published name: tensor}}.

    No code in the folder is run. Raises a ConfigError that lists missing and unexpected tensors and
    wrong shapes; an output layer may be missing.
    """
    if not path.is_dir():
        raise ConfigError(
            f"pretrained: '{path}' is a file; expected a folder with config.json and the weights"
        )
    transformers = import_library("transformers", extra="vlm")
    with (
        as_config_error(f"pretrained: transformers cannot load '{path}'"),
        _without_log(transformers),
        CPU,
    ):
        full, report = _auto_class().from_pretrained(
            path,
            config=load_config(path),
            dtype=torch.get_default_dtype(),
            trust_remote_code=False,
            weights_only=True,
            # so that the report lists wrong shapes together with all other mistakes
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    layout = split_vlm(full, f"pretrained: '{path}'")
    tensors = {layout.prefix + name: tensor for name, tensor in layout.base.state_dict().items()}
    _raise_unless_complete(tensors, report, path)
    parts: dict[Role, dict[str, Tensor]] = {"vision": {}, "text": {}, "backbone": {}, "output": {}}
    for name, tensor in tensors.items():
        parts[layout.role_of(name.removeprefix(layout.prefix))][name] = tensor
    if layout.output:
        absent = {*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])}
        layer = full.get_submodule(layout.output).state_dict(prefix=f"{layout.output}.")
        parts["output"] = {name: tensor for name, tensor in layer.items() if name not in absent}
    return parts


def robovlms_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename tensors from Hugging Face's names to those in RoboVLMs' checkpoints."""
    return {ROBOVLMS_PREFIX + name: tensor for name, tensor in tensors.items()}


def _auto_class() -> Any:
    return import_library("transformers", extra="vlm").AutoModelForImageTextToText


def _unsupported(layout: VLMLayout) -> str:
    """Return why a model cannot be split into the parts; "" if the model can be split."""
    if not hasattr(layout.base, "get_image_features"):
        return "has no get_image_features"
    if not layout.prefix:
        return "has no base model without its output layer"
    if not layout.decoder:
        return "has no language model of its own name"
    if not layout.embedding.startswith(layout.decoder + "."):
        return "has no token embedding in its language model"
    arguments = inspect.signature(layout.language_model.forward).parameters.values()
    names = [
        argument.name for argument in arguments if argument.kind is argument.POSITIONAL_OR_KEYWORD
    ]
    if unusual := [name for name in names if name not in USUAL_ARGUMENTS]:
        return f"its language model asks for more than embeddings ({', '.join(unusual)})"
    return ""


def _cut_out(layout: VLMLayout, role: Role) -> tuple[Any, Any, str]:
    """Remove from a model everything that does not belong to a role.

    Returns three things: the PreTrainedModel that can initialise the remaining weights; the role's
    module, which is this model or a part of it; and the prefix that makes the name of a weight in
    that module its published name.
    """
    full, base, decoder = layout.full, layout.base, layout.language_model
    if role == "output":
        output = full.get_submodule(layout.output)
        _remove(full, full.base_model_prefix)
        return full, output, f"{layout.output}."
    if role == "vision":
        _remove(base, layout.decoder)
        return base, base, layout.prefix
    embedding_name = layout.embedding.removeprefix(layout.decoder + ".")
    if role == "backbone":
        _remove(decoder, embedding_name)
        return decoder, decoder, f"{layout.prefix}{layout.decoder}."
    embedding = decoder.get_submodule(embedding_name)
    for name, child in list(decoder.named_children()):
        if embedding not in list(child.modules()):
            _remove(decoder, name)
    return decoder, embedding, f"{layout.prefix}{layout.embedding}."


def _remove(module: nn.Module, name: str) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(parent), leaf, None)


def _untied_output(full: Any, embedding: Any) -> str:
    """Return the name of the output layer; "" if there is none, or if it is the token embedding."""
    output = full.get_output_embeddings()
    if output is None or output.weight is getattr(embedding, "weight", None):
        return ""
    names: dict[int, str] = {id(module): name for name, module in full.named_modules()}
    return names[id(output)]


def _describe(full: Any, role: Role) -> dict[str, Any]:
    """Return what config.json says about the role, in the form that transformers writes."""
    config = json.loads(full.config.to_json_string())
    language = config.pop("text_config", {})
    if role == "output":
        return {}
    if role == "vision":
        return {**config, "architectures": [type(full).__name__]}
    vocabulary = {
        "vocab_size": language.pop("vocab_size", full.get_input_embeddings().num_embeddings)
    }
    return {
        "model_type": config["model_type"],
        "text_config": language if role == "backbone" else vocabulary,
    }


def _raise_unless_complete(tensors: dict[str, Tensor], report: dict[str, Any], path: Path) -> None:
    """Raise ConfigError if transformers reports that a folder's tensors do not fit the model."""
    in_folder = {
        name: tensor for name, tensor in tensors.items() if name not in report["missing_keys"]
    }
    for name in report["unexpected_keys"]:
        in_folder[name] = torch.empty(0, device="meta")
    for name, shape, _ in report["mismatched_keys"]:
        if name in tensors:
            in_folder[name] = torch.empty(shape, device="meta")
    check_state_dict(tensors, in_folder, str(path))


@contextmanager
def _without_log(transformers: Any) -> Iterator[None]:
    """Stop transformers from logging what a ConfigError already says."""
    logging = transformers.utils.logging
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
