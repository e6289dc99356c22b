"""A vision-language model of transformers, taken apart into what sees, what embeds words, and the
language model.

Every weight below its base model belongs to one of three shares, by its name: to the text what lies
in the token embedding, to the backbone what else lies in the language model, to the vision the
rest. The output layer, which turns hidden states into words, is the embedding over again, or a
fourth share.
"""

import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from core import ConfigError, import_library
from core.weights import Pretrained, check_state_dict

Role = Literal["vision", "text", "backbone", "output"]
SECTION: dict[Role, str] = {
    "vision": "vision_encoder",
    "text": "text_encoder",
    "backbone": "backbone",
    "output": "text_encoder",
}
# a language model that takes more than this needs something that embeddings do not carry
USUAL = (
    "input_ids",
    "inputs_embeds",
    "attention_mask",
    "position_ids",
    "cache",
    "past_key_values",
    "use_cache",
)
CPU = torch.device(
    "cpu"
)  # everything is made there, whatever the default device; core moves the policy as a whole
LIKE = "this component joins models like LLaVA, PaliGemma, Qwen2.5-VL, Idefics3 and SmolVLM"


@dataclass(frozen=True)
class Anatomy:
    """A base model of transformers, and where its pieces are."""

    full: Any  # PreTrainedModel
    base: Any  # the same without the output layer
    prefix: str  # what stands before the base model's names where its weights are published
    decoder: str  # the language model's name below the base model
    embedding: str  # the token embedding's
    # the output layer's name below the full model; nothing where it is the embedding, or there is
    # none
    output: str

    @property
    def language_model(self) -> Any:
        """The language model, a PreTrainedModel."""
        return self.base.get_submodule(self.decoder)

    def role(self, name: str) -> Role:
        """Whose share a weight of the base model is."""
        if name.startswith(self.embedding + "."):
            return "text"
        return "backbone" if name.startswith(self.decoder + ".") else "vision"


@dataclass(frozen=True)
class Share:
    """One part's piece of a model, with weights of its own, and what its names stand behind when
    published.
    """

    module: Any
    prefix: str
    description: dict[str, Any]  # its share of config.json
    config: Any  # the whole model's
    tied: bool  # whether the output layer is the token embedding

    def publish(self) -> dict[str, Tensor]:
        """Its tensors under their published names."""
        return {self.prefix + name: tensor for name, tensor in self.module.state_dict().items()}

    def load(self, role: Role, weights: Pretrained) -> None:
        """Make the tensors of a loaded model its own, strictly; they are no other part's, so
        nothing is copied.
        """
        found = weights.once(load_shares).pop(role, {})
        check_state_dict(self.publish(), found, weights.source)
        self.module.load_state_dict(
            {name.removeprefix(self.prefix): x for name, x in found.items()}, assign=True
        )


def build_share(source: str, role: Role) -> Share:
    """Build one part's piece of the model that a folder or the hub describes, with random weights.

    Raises ConfigError where there is no such model, or it is not made of these three pieces.
    """
    where = f"{SECTION[role]}.model"
    config = read_config(source, where)
    with (
        one_line(f"{where}: transformers cannot build '{source}'"),
        torch.device("meta"),
    ):  # without memory
        full = _auto_class().from_config(
            config, dtype=torch.get_default_dtype(), trust_remote_code=False
        )
    anatomy = take_apart(full, f"{where}: '{source}'")
    if role == "output" and not anatomy.output:
        raise ConfigError(
            f"text_encoder.output: '{source}' has no output layer of its own; leave it out"
        )
    description, tied = (
        _describe(full, role),
        not anatomy.output and full.get_output_embeddings() is not None,
    )
    root, module, prefix = _cut(anatomy, role)
    root.to_empty(device=CPU)
    with CPU:
        # and the buffers that no state dict holds, rotary frequencies for example
        root.initialize_weights()
    return Share(module, prefix, description, config, tied)


def read_config(source: str, where: str) -> Any:
    """Read a model's config.json; ConfigError where there is none, or it is no vision-language
    model's.
    """
    transformers = import_library("transformers", extra="vlm")
    with one_line(
        f"{where}: '{source}' is no folder of a model that transformers knows, nor does the hub give it"
    ):
        config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
    known = import_library(
        "transformers.models.auto.modeling_auto"
    ).MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    if config.model_type not in known:
        raise ConfigError(
            f"{where}: '{source}' is a '{config.model_type}', which is no vision-language model; {LIKE}"
        )
    return config


def take_apart(full: Any, what: str) -> Anatomy:
    """Find the pieces of a model; ConfigError where it is made of others.

    what: names the model in the message.
    """
    base = full.base_model
    names = {id(module): name for name, module in base.named_modules()}
    try:
        decoder, embedding = base.get_decoder(), base.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        decoder = embedding = None
    anatomy = Anatomy(
        full=full,
        base=base,
        prefix="" if base is full else f"{full.base_model_prefix}.",
        decoder=names.get(id(decoder), ""),
        embedding=names.get(id(embedding), ""),
        output=_untied_output(full, embedding),
    )
    if lacking := _lacking(anatomy):
        raise ConfigError(f"{what} is a {type(full).__name__} and {lacking}; {LIKE}")
    return anatomy


def repeated_blocks(module: nn.Module) -> list[nn.Module]:
    """The layers of a network: the longest list of modules in it."""
    lists = [list(child) for child in module.modules() if isinstance(child, nn.ModuleList)]
    return max(lists, key=len, default=[])


def load_shares(path: Path) -> dict[Role, dict[str, Tensor]]:
    """Load a folder as transformers does, and share the tensors out: {role: {published name:
    tensor}}.

    Raises ConfigError that lists what is missing, unexpected and misshapen; an output layer may be
    missing. No code
    of the folder is run.
    """
    if not path.is_dir():
        raise ConfigError(
            f"pretrained: '{path}' is a file; expected a folder with config.json and the weights"
        )
    transformers = import_library("transformers", extra="vlm")
    with (
        one_line(f"pretrained: transformers cannot load '{path}'"),
        _without_reports(transformers),
        CPU,
    ):
        full, report = _auto_class().from_pretrained(
            path,
            dtype=torch.get_default_dtype(),
            trust_remote_code=False,
            weights_only=True,
            # so that the report has them, with everything else that is wrong
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    anatomy = take_apart(full, f"pretrained: '{path}'")
    tensors = {anatomy.prefix + name: tensor for name, tensor in anatomy.base.state_dict().items()}
    _raise_unless_complete(tensors, report, path)
    shares: dict[Role, dict[str, Tensor]] = {"vision": {}, "text": {}, "backbone": {}, "output": {}}
    for name, tensor in tensors.items():
        shares[anatomy.role(name.removeprefix(anatomy.prefix))][name] = tensor
    if anatomy.output:
        absent = {*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])}
        layer = full.get_submodule(anatomy.output).state_dict(prefix=f"{anatomy.output}.")
        shares["output"] = {name: tensor for name, tensor in layer.items() if name not in absent}
    return shares


@contextmanager
def one_line(what: str) -> Iterator[None]:
    """Make whatever transformers raises one ConfigError of one line."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:  # transformers, and what a stranger wrote, fail in any way
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{what}: {reason[:300]}") from error


def _auto_class() -> Any:
    return import_library("transformers", extra="vlm").AutoModelForImageTextToText


def _lacking(anatomy: Anatomy) -> str:
    """Say why a model cannot be joined, or nothing."""
    if not hasattr(anatomy.base, "get_image_features"):
        return "has no get_image_features"
    if not anatomy.prefix:
        return "has no base model without its output layer"
    if not anatomy.decoder:
        return "has no language model of its own name"
    if not anatomy.embedding.startswith(anatomy.decoder + "."):
        return "has no token embedding in its language model"
    arguments = inspect.signature(anatomy.language_model.forward).parameters.values()
    named = [a.name for a in arguments if a.kind is a.POSITIONAL_OR_KEYWORD]
    if more := [name for name in named if name not in USUAL]:
        return f"its language model asks for more than embeddings ({', '.join(more)})"
    return ""


def _cut(anatomy: Anatomy, role: Role) -> tuple[Any, Any, str]:
    """Take everything away that is not the role's -> what initialises itself, the role's module in
    it, its prefix.
    """
    full, base, decoder = anatomy.full, anatomy.base, anatomy.language_model
    if role == "output":
        output = full.get_submodule(anatomy.output)
        _remove(full, full.base_model_prefix)
        return full, output, f"{anatomy.output}."
    if role == "vision":
        _remove(base, anatomy.decoder)
        return base, base, anatomy.prefix
    inner = anatomy.embedding.removeprefix(anatomy.decoder + ".")
    if role == "backbone":
        _remove(decoder, inner)
        return decoder, decoder, f"{anatomy.prefix}{anatomy.decoder}."
    embedding = decoder.get_submodule(inner)
    for name, child in list(decoder.named_children()):
        if embedding not in list(child.modules()):
            _remove(decoder, name)
    return decoder, embedding, f"{anatomy.prefix}{anatomy.embedding}."


def _remove(module: nn.Module, name: str) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(parent), leaf, None)


def _untied_output(full: Any, embedding: Any) -> str:
    """Name the layer that turns hidden states into words, or nothing where it is the embedding, or
    there is none.
    """
    output = full.get_output_embeddings()
    if output is None or output.weight is getattr(embedding, "weight", None):
        return ""
    names: dict[int, str] = {id(module): name for name, module in full.named_modules()}
    return names[id(output)]


def _describe(full: Any, role: Role) -> dict[str, Any]:
    """The role's share of config.json, as transformers writes it."""
    whole = json.loads(full.config.to_json_string())
    language = whole.pop("text_config", {})
    if role == "output":
        return {}
    if role == "vision":
        return {**whole, "architectures": [type(full).__name__]}
    vocabulary = {
        "vocab_size": language.pop("vocab_size", full.get_input_embeddings().num_embeddings)
    }
    return {
        "model_type": whole["model_type"],
        "text_config": language if role == "backbone" else vocabulary,
    }


def _raise_unless_complete(tensors: dict[str, Tensor], report: dict[str, Any], path: Path) -> None:
    """Compare what a folder held, as transformers reports it, with what the base model has."""
    found = {name: tensor for name, tensor in tensors.items() if name not in report["missing_keys"]}
    found |= {name: torch.empty(0, device="meta") for name in report["unexpected_keys"]}
    found |= {
        name: torch.empty(shape, device="meta")
        for name, shape, _ in report["mismatched_keys"]
        if name in tensors
    }
    check_state_dict(tensors, found, str(path))


@contextmanager
def _without_reports(transformers: Any) -> Iterator[None]:
    """Keep transformers from logging a table of what a ConfigError says."""
    logging = transformers.utils.logging
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
