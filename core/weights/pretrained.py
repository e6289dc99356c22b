"""Weights that others published: opened once for all parts of a policy, fitted to each strictly; no
code is run.

A source is a folder in the layout of Hugging Face (safetensors or .bin, sharded or not), one file
of weights (.safetensors, .bin, .pt, .pth, or a .ckpt of PyTorch Lightning), or a repository's name
on the Hugging Face hub.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeVar, cast

import torch
from google_crc32c import extend
from torch import Tensor, nn

from core.errors import ConfigError

T = TypeVar("T")
HUB_FILES = ["*.safetensors", "*.json", "*.model", "*.txt"]
SINGLE = (
    "model.safetensors",
    "pytorch_model.bin",
)  # the first that is there; each may be sharded, with an index


class Pretrained:
    """One source of weights. Raises ConfigError where it is not to be had or cannot be read."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._made: dict[Callable[..., Any], Any] = {}

    @cached_property
    def path(self) -> Path:
        """The folder or file: a source that is no absolute path is a name on the hub, and
        downloaded from there.
        """
        path = Path(self.source)
        if not path.is_absolute():
            return _download(self.source)
        if not path.exists():
            raise ConfigError(f"pretrained: there is no file or folder '{path}'")
        return path

    @cached_property
    def tensors(self) -> Mapping[str, Tensor]:
        """Every tensor by its published name, read when it is asked for."""
        return _unwrap(_open(self.path))

    def once(self, make: Callable[[Path], T]) -> T:
        """Return make(path), made for the first part that asks and shared with the others of the
        same policy.
        """
        if make not in self._made:
            self._made[make] = make(self.path)
        return cast(T, self._made[make])


@dataclass(frozen=True)
class NameMap:
    """What a part's tensors are called in a published checkpoint.

    table: {own module or tensor: published one, or several that lie joined along the first axis of
    the own}; "*"
        stands for a layer's number on both sides.
    squeeze: own tensors that are published without their axes of length one.
    """

    table: Mapping[str, str | tuple[str, ...]]
    squeeze: frozenset[str] = field(default_factory=frozenset)

    def publish(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Own state dict -> the same numbers under their published names; views, not copies."""
        published: dict[str, Tensor] = {}
        for own, tensor in state.items():
            names = self._published(own)
            pieces = tensor.chunk(len(names))
            published.update(
                zip(
                    names,
                    (p.squeeze() for p in pieces) if own in self.squeeze else pieces,
                    strict=True,
                )
            )
        return published

    @torch.no_grad()
    def load(self, part: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
        """Fill a part from published tensors: exactly those it has, each of the right shape.

        source: for the ConfigError that lists everything that does not fit.
        """
        wanted = self.publish(
            part.state_dict()
        )  # views: what is written to them is written to the part
        check_state_dict(wanted, tensors, source)
        for name, weight in wanted.items():
            weight.copy_(tensors[name])

    def _published(self, own: str) -> tuple[str, ...]:
        words = own.split(".")
        number = next((word for word in words if word.isdigit()), "")
        pattern = ".".join("*" if word.isdigit() else word for word in words)
        for key, rest in ((pattern, ""), (pattern.rpartition(".")[0], "." + words[-1])):
            if key in self.table:
                names = self.table[key]
                return tuple(
                    name.replace("*", number) + rest
                    for name in ((names,) if isinstance(names, str) else names)
                )
        raise KeyError(f"the table of published names lacks '{own}'")


@dataclass(frozen=True)
class FrozenWeights:
    """Weights of a policy that stay as their source gave them, so that no checkpoint need hold
    them.

    names: in the policy's state dict. checksum: CRC32C of what the source gave; 0 for nothing.
    """

    names: frozenset[str] = frozenset()
    checksum: int = 0


NO_FROZEN_WEIGHTS = FrozenWeights()


def checksum(tensors: Mapping[str, Tensor]) -> int:
    """CRC32C of tensors in the order of their names; 0 for none."""
    crc = 0
    for _, tensor in sorted(tensors.items()):
        crc = extend(
            crc, tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        )
    return int(crc)


def check_state_dict(
    wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], source: str
) -> None:
    """Raise ConfigError that lists tensors missing, unexpected and misshapen, as far as a reader
    can take it in.
    """
    wrong = {
        "missing": [name for name in wanted if name not in found],
        "unexpected": [name for name in found if name not in wanted],
        "misshapen": [
            f"{name} {tuple(found[name].shape)} instead of {tuple(tensor.shape)}"
            for name, tensor in wanted.items()
            if name in found and found[name].shape != tensor.shape
        ],
    }
    if any(wrong.values()):
        what = "; ".join(f"{kind}: {_first_few(names)}" for kind, names in wrong.items() if names)
        raise ConfigError(f"pretrained: '{source}' does not fit; {what}")


def filter_keys(
    tensors: Mapping[str, Tensor], wanted: Callable[[str], bool]
) -> Mapping[str, Tensor]:
    """Return the tensors whose names are wanted, still unread."""
    return _Lazy({name: name for name in tensors if wanted(name)}, tensors.__getitem__)


def strip_prefix(tensors: Mapping[str, Tensor], prefix: str) -> Mapping[str, Tensor]:
    """Return the tensors whose names begin with a prefix, without it, still unread."""
    names = {name[len(prefix) :]: name for name in tensors if name.startswith(prefix)}
    return _Lazy(names, tensors.__getitem__)


class _Lazy(Mapping[str, Tensor]):
    """Tensors that are read when they are looked up: names here -> names there, and how to read one
    from there.
    """

    def __init__(self, names: Mapping[str, str], read: Callable[[str], Tensor]) -> None:
        self._names = names
        self._read = read

    def __getitem__(self, name: str) -> Tensor:
        return self._read(self._names[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _download(name: str) -> Path:
    """Fetch the weights and descriptions of a repository on the hub, or find them in its cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, allow_patterns=HUB_FILES, ignore_patterns=["*/*"]))
        if not list(folder.glob("*.safetensors")):  # many repositories hold the weights twice
            snapshot_download(
                name, allow_patterns=["*.bin", "*.bin.index.json"], ignore_patterns=["*/*"]
            )
        return folder
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ConfigError(
            f"pretrained: '{name}' is no file or folder, and the Hugging Face hub does not give it: {_reason(error)}"
        ) from None


def _open(path: Path) -> Mapping[str, Tensor]:
    """Open a file of weights, or those of a folder."""
    if path.is_file():
        return _open_file(path)
    for name in SINGLE:
        if (path / name).exists():
            return _open_file(path / name)
        if (path / f"{name}.index.json").exists():
            return _open_shards(path / f"{name}.index.json")
    raise ConfigError(
        f"pretrained: {path} holds no weights: expected {' or '.join(SINGLE)}, or an index of shards"
    )


def _open_shards(index: Path) -> Mapping[str, Tensor]:
    """Open the files that an index names; each must hold what the index says of it."""
    try:
        files: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards = {file: _open_file(index.parent / file) for file in sorted(set(files.values()))}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"pretrained: cannot read '{index}': {error}") from None
    if lost := [f"{name} in {file}" for name, file in files.items() if name not in shards[file]]:
        raise ConfigError(
            f"pretrained: '{index}' names tensors that are not there: {_first_few(lost)}"
        )
    return _Lazy({name: name for name in files}, lambda name: shards[files[name]][name])


def _open_file(path: Path) -> Mapping[str, Tensor]:
    """Open one file without ever running code that it may carry."""
    if path.suffix != ".safetensors":
        return _state_dict(_unpickle(path), path)
    from safetensors import SafetensorError, safe_open

    try:
        file = ExitStack().enter_context(safe_open(path, framework="pt"))
        return _Lazy({name: name for name in file.keys()}, file.get_tensor)  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"pretrained: cannot read '{path}': {_reason(error)}") from None


def _unpickle(path: Path) -> object:
    """Read a file that torch wrote, as far as it is weights and plain data."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        if "Unsupported" not in str(error):
            raise ConfigError(
                f"pretrained: cannot read '{path}': it is no file that torch wrote"
            ) from None
        raise ConfigError(
            f"pretrained: '{path}' holds more than weights, and is not loaded, since that could run code; "
            "save its state dict alone"
        ) from None
    except Exception as error:  # noqa: BLE001 - a damaged pickle fails in any way
        raise ConfigError(f"pretrained: cannot read '{path}': {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """The first line of what an error says, or its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _state_dict(content: object, path: Path) -> Mapping[str, Tensor]:
    """The weights in what a file holds: a state dict, or a training checkpoint with one inside."""
    for key in ("state_dict", "model_state_dict", "model", "module"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(
        isinstance(k, str) and isinstance(x, Tensor) for k, x in content.items()
    ):
        raise ConfigError(f"pretrained: '{path}' is no state dict (names -> tensors); save one")
    return content


def _unwrap(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Drop what wrappers put before every name: torch.compile and DistributedDataParallel do."""
    prefixes = ("_orig_mod.", "module.")
    while tensors and (
        found := [p for p in prefixes if all(name.startswith(p) for name in tensors)]
    ):
        tensors = strip_prefix(tensors, found[0])
    return tensors


def _first_few(names: Sequence[str], count: int = 8) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
