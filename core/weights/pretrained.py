"""Published weights: opened once for all parts of a policy, and loaded strictly into each.

A source is a folder in the layout of Hugging Face (safetensors or .bin, sharded or not), one file
of weights (.safetensors, .bin, .pt, .pth, or a .ckpt of PyTorch Lightning), or the name of a
repository on the Hugging Face hub. Opening a source never runs code that its files may contain.
"""

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

from core.errors import ConfigError, DataError
from core.system.console import errors
from core.system.links import path_below
from core.system.strict import parse_json

T = TypeVar("T")
HUB_FILES = ["*.safetensors", "*.json", "*.model", "*.txt"]
# a folder's weights are in the first of these files that exists; each of these files may be
# replaced by several shards and an index
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")


class Pretrained:
    """One source of weights. Raises ConfigError if it does not exist or cannot be read."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._results: dict[Callable[..., Any], Any] = {}

    @cached_property
    def path(self) -> Path:
        """The folder or file; a source that is not an absolute path is downloaded from the hub."""
        path = Path(self.source)
        if not path.is_absolute():
            return _download(self.source)
        if not path.exists():
            raise ConfigError(f"pretrained: there is no file or folder '{path}'")
        return path

    @cached_property
    def tensors(self) -> Mapping[str, Tensor]:
        """{published name: tensor}; a tensor in .safetensors is read only when it is looked up."""
        return _unwrap(_open(self.path))

    def once(self, make: Callable[[Path], T]) -> T:
        """Return make(path), which is computed only once and shared by a policy's parts."""
        if make not in self._results:
            self._results[make] = make(self.path)
        return cast(T, self._results[make])


@dataclass(frozen=True)
class NameMap:
    """The names of a part's tensors in a published checkpoint.

    table: {name of a module or tensor of the part: published name}; in both names, "*" stands for
        a layer's index. If the value is a tuple of published names, the part's tensor is the
        concatenation of the published tensors along their first axis.
    squeeze: names of the part's tensors that are published without their axes of length one.
    """

    table: Mapping[str, str | tuple[str, ...]]
    squeeze: frozenset[str] = field(default_factory=frozenset)

    def publish(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a part's state dict under the published names; the tensors are views."""
        published: dict[str, Tensor] = {}
        for name, tensor in state.items():
            published_names = self._published_names(name)
            pieces = tensor.chunk(len(published_names))
            for published_name, piece in zip(published_names, pieces, strict=True):
                published[published_name] = piece.squeeze() if name in self.squeeze else piece
        return published

    def load(self, part: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
        """Fill a part with published tensors; all names and shapes must be as the part expects.

        source: name of the source, for error messages. Raises ConfigError if a name or shape does
        not fit, as `check_state_dict` does.
        """
        fill(self.publish(part.state_dict()), tensors, source)  # views of the part's tensors

    def _published_names(self, name: str) -> tuple[str, ...]:
        """Return the published names of a tensor of the part.

        The names come from the table's entry for the tensor. If there is no such entry, they come
        from the entry for the tensor's module.
        """
        words = name.split(".")
        number = next((word for word in words if word.isdigit()), "")
        pattern = ".".join("*" if word.isdigit() else word for word in words)
        module_pattern = pattern.rpartition(".")[0]
        for key, suffix in ((pattern, ""), (module_pattern, "." + words[-1])):
            if key in self.table:
                entry = self.table[key]
                published_names = (entry,) if isinstance(entry, str) else entry
                return tuple(p.replace("*", number) + suffix for p in published_names)
        raise KeyError(f"the table of published names lacks '{name}'")


@dataclass(frozen=True)
class FrozenWeights:
    """Frozen pretrained weights: a checkpoint holds their checksum instead of the weights.

    names: names of the weights in the policy's state dict.
    checksum: CRC32C of the tensors; 0 if there are no tensors.
    """

    names: frozenset[str] = frozenset()
    checksum: int = 0


NO_FROZEN_WEIGHTS = FrozenWeights()


def checksum(tensors: Mapping[str, Tensor]) -> int:
    """Return the CRC32C of tensors in the order of their names; 0 if there are no tensors."""
    crc = 0
    for _, tensor in sorted(tensors.items()):
        flat = tensor.detach().cpu().contiguous().view(-1)
        crc = extend(crc, flat.view(torch.uint8).numpy().tobytes())
    return int(crc)


def check_state_dict(
    expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor], source: str
) -> None:
    """Raise ConfigError unless `tensors` has the names and shapes of `expected`.

    The error lists the first few missing, the first few unexpected and the first few misshapen
    tensors.
    """
    if misfits := find_misfits(expected, tensors):
        raise ConfigError(f"pretrained: '{source}' does not fit; {misfits}")


@torch.no_grad()
def fill(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy published tensors into `own`, tensors of a part under their published names.

    source: name of the source, for error messages. Raises ConfigError if a name or shape does not
    fit, as `check_state_dict` does.
    """
    check_state_dict(own, tensors, source)
    for name, weight in own.items():
        weight.copy_(tensors[name])


def find_misfits(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str:
    """Return which names and shapes of `tensors` are not those of `expected`; "" if all fit."""
    misfits: dict[str, list[str]] = {
        "missing": [name for name in expected if name not in tensors],
        "unexpected": [name for name in tensors if name not in expected],
        "misshapen": [
            f"{name} {tuple(tensors[name].shape)} instead of {tuple(tensor.shape)}"
            for name, tensor in expected.items()
            if name in tensors and tensors[name].shape != tensor.shape
        ],
    }
    return "; ".join(f"{kind}: {first_few(names)}" for kind, names in misfits.items() if names)


def carry_rows(own: Tensor, former: Tensor) -> Tensor:
    """Return a copy of `own` (n ...) whose first rows are those of `former` (m ...).

    `former` is returned as it is if the shapes differ beyond the first axis.
    """
    if own.shape[1:] != former.shape[1:]:
        return former
    rows = min(len(own), len(former))
    carried = own.detach().clone()
    carried[:rows] = former[:rows].to(carried.dtype)
    return carried


def filter_keys(tensors: Mapping[str, Tensor], keep: Callable[[str], bool]) -> Mapping[str, Tensor]:
    """Return the tensors for which `keep(name)` is true, without reading them."""
    return _LazyTensors({name: name for name in tensors if keep(name)}, tensors.__getitem__)


def strip_prefix(tensors: Mapping[str, Tensor], prefix: str) -> Mapping[str, Tensor]:
    """Return the tensors whose names begin with `prefix`, without the prefix; no tensor is read."""
    names = {name[len(prefix) :]: name for name in tensors if name.startswith(prefix)}
    return _LazyTensors(names, tensors.__getitem__)


class _LazyTensors(Mapping[str, Tensor]):
    """Tensors that `read` reads only when they are looked up.

    names: {name in this mapping: name in the source}.
    read: reads a tensor by its name in the source.
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


def cached_on_hub(name: str) -> Path | None:
    """Return the folder of a hub repository's files on this machine; None if there is none."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError, OSError):
        return None


def _download(name: str) -> Path:
    """Return the folder of a hub repository's weights and configuration; download it if need be.

    What an earlier download left on this machine is not asked for again, so that a policy is
    loaded without the network.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    if (cached := cached_on_hub(name)) is not None and _holds_weights(cached):
        return cached
    try:
        validate_repo_id(name)
        errors().print(f"pretrained: fetching '{name}' from the Hugging Face hub")
        folder = Path(snapshot_download(name, allow_patterns=HUB_FILES, ignore_patterns=["*/*"]))
        if not list(folder.glob("*.safetensors")):  # one format is enough
            snapshot_download(
                name, allow_patterns=["*.bin", "*.bin.index.json"], ignore_patterns=["*/*"]
            )
        return folder
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ConfigError(
            f"pretrained: '{name}' is no file or folder, "
            f"and the Hugging Face hub does not provide it: {_reason(error)}"
        ) from None


def _holds_weights(folder: Path) -> bool:
    """Whether a folder holds all files of a model's weights; False if its index is damaged."""
    for name in WEIGHT_FILES:
        index = folder / f"{name}.index.json"
        if (folder / name).exists():
            return True
        if index.exists():
            try:
                return all((folder / file).exists() for file in _shards_of(index).values())
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                return False
    return False


def _open(path: Path) -> Mapping[str, Tensor]:
    """Open a file of weights, or the weights in a folder."""
    if path.is_file():
        return _open_file(path)
    for name in WEIGHT_FILES:
        if (path / name).exists():
            return _open_file(path / name)
        if (path / f"{name}.index.json").exists():
            return _open_shards(path / f"{name}.index.json")
    raise ConfigError(
        f"pretrained: {path} holds no weights: expected {' or '.join(WEIGHT_FILES)}, "
        "or an index of shards; a run's folder holds recipe.toml"
    )


def _shards_of(index: Path) -> Mapping[str, str]:
    """Return {tensor: name of its file}, as an index says, whose content is not checked."""
    shards: Mapping[str, str] = parse_json(index.read_text(encoding="utf-8"))["weight_map"]
    return shards


def _open_shards(index: Path) -> Mapping[str, Tensor]:
    """Open the files that an index lists; each must hold all tensors that are listed for it."""
    try:
        files = _shards_of(index)
        names = sorted(set(files.values()))
        shards = {name: _open_file(path_below(index.parent, name)) for name in names}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, DataError) as error:
        raise ConfigError(f"pretrained: cannot read '{index}': {error}") from None
    missing = [f"{name} in {file}" for name, file in files.items() if name not in shards[file]]
    if missing:
        raise ConfigError(
            f"pretrained: '{index}' names tensors that are not there: {first_few(missing)}"
        )
    return _LazyTensors({name: name for name in files}, lambda name: shards[files[name]][name])


def _open_file(path: Path) -> Mapping[str, Tensor]:
    """Open one file, without running any code that the file may contain."""
    if path.suffix != ".safetensors":
        return _state_dict(_unpickle(path), path)
    from safetensors import SafetensorError, safe_open

    try:
        file = ExitStack().enter_context(safe_open(path, framework="pt"))
        return _LazyTensors({name: name for name in file.keys()}, file.get_tensor)  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"pretrained: cannot read '{path}': {_reason(error)}") from None


def _unpickle(path: Path) -> object:
    """Read a file that torch wrote; only tensors and plain data are accepted."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        if "Unsupported" not in str(error):
            raise ConfigError(
                f"pretrained: cannot read '{path}': it is no file that torch wrote"
            ) from None
        raise ConfigError(
            f"pretrained: '{path}' holds more than weights, and is not loaded, "
            "since that could run code; save its state dict alone"
        ) from None
    except Exception as error:  # noqa: BLE001 (a damaged pickle may raise anything)
        raise ConfigError(f"pretrained: cannot read '{path}': {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """Return the first line of an error's message, or its type if it has no message."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _state_dict(content: object, path: Path) -> Mapping[str, Tensor]:
    """Return a file's state dict, which may be one entry of a training checkpoint."""
    for key in ("state_dict", "model_state_dict", "model", "module"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if isinstance(content, dict) and all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items()
    ):
        return content
    raise ConfigError(f"pretrained: '{path}' is no state dict (names -> tensors); save one")


def _unwrap(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Strip the prefixes that torch.compile and DistributedDataParallel put before every name."""
    prefixes = ("_orig_mod.", "module.")
    while tensors:
        common = [prefix for prefix in prefixes if all(n.startswith(prefix) for n in tensors)]
        if not common:
            break
        tensors = strip_prefix(tensors, common[0])
    return tensors


def first_few(names: Sequence[str], count: int = 8) -> str:
    """Join the first `count` names, and say how many more names there are."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
