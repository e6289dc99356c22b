"""torch.compile of a policy's parts, in place, so that the names of weights stay the same."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from core.contracts.abilities import HasBlocks
from core.errors import ConfigError, TrainingError
from core.policy.policy import Policy
from core.training.optimizer import modules_of

# what `torch.compile` needs on each kind of device
COMPILERS = {
    "cpu": "a C++ compiler (on Debian and Ubuntu: apt install g++)",
    "cuda": "Triton and a C compiler (pip install triton; on Debian and Ubuntu: apt install gcc)",
}


def compile_blocks(policy: Policy, device: torch.device) -> dict[str, int]:
    """Let PyTorch compile the blocks of all parts; return {name of a part: number of its blocks}.

    Blocks of one kind share one compiled function, so compiling takes no longer for a deep part. A
    part without `blocks` stays as it is.

    device: where the policy will be trained.

    Raises ConfigError if no part has blocks, or if nothing can be compiled for that device.
    """
    blocks = {
        name: list(part.blocks)
        for name, part in modules_of(policy).items()
        if isinstance(part, HasBlocks) and len(part.blocks)
    }
    if not blocks:
        raise ConfigError("train.compile: no part has repeated blocks; set it to false")
    _raise_without_compiler(device)
    # DDP's own split of compiled graphs does not know gradient checkpointing, and blocks are small
    torch._dynamo.config.optimize_ddp = False
    for modules in blocks.values():
        for module in modules:
            module.compile()  # in place, without a wrapper around the module
    return {name: len(modules) for name, modules in blocks.items()}


@contextmanager
def compilation_explained() -> Iterator[None]:
    """Turn an error of PyTorch's compiler inside the `with` block into a TrainingError."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        raise TrainingError(
            f"train.compile: PyTorch cannot compile a part: {_reason(error)}; "
            "set train.compile = false"
        ) from error


def _raise_without_compiler(device: torch.device) -> None:
    """Raise ConfigError unless a tiny function can be compiled and run on the device."""
    try:
        torch.compile(torch.sin)(torch.zeros(8, device=device))
    # whatever the compiler raises, nothing can be compiled
    except Exception as error:
        needed = COMPILERS.get(device.type, f"a compiler for '{device.type}'")
        raise ConfigError(
            f"train.compile: nothing can be compiled on this machine: {_reason(error)}; "
            f"install {needed}, or set train.compile = false"
        ) from error


def _reason(error: Exception) -> str:
    """Return the compiler's message in one line, without its advice on how to debug PyTorch."""
    return " ".join(str(error).partition("Set TORCHDYNAMO_VERBOSE")[0].split())[:300]
