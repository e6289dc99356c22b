"""Learning rates that fall from a part's last block to its first, for pretrained parts."""

from bisect import bisect_right
from collections import defaultdict

from torch import nn

from core.contracts.abilities import HasBlocks


def rate_factors(part: nn.Module, decay: float) -> dict[nn.Parameter, float] | None:
    """Return the factor of every parameter's learning rate; None if the part has no blocks.

    The factor is 1 for what stands after the blocks, `decay` in the last block, decay**2 in the
    block before it, and so on; what stands before the first block has the smallest factor (BEiT,
    Bao et al. 2022). What stands before and after follows from the order in which the modules were
    made. A part with several stacks of blocks, such as one for each camera, has a count for each.
    """
    if not isinstance(part, HasBlocks) or not len(part.blocks):
        return None
    names = {module: name for name, module in part.named_modules()}
    stacks: dict[str, list[str]] = defaultdict(list)  # {container: names of its blocks}
    for block in part.blocks:
        stacks[names[block].rpartition(".")[0]].append(names[block])
    order = {name: place for place, (name, _) in enumerate(part.named_parameters())}
    factors = {}
    for name, parameter in part.named_parameters():
        factors[parameter] = decay ** _layers_after(name, stacks, order)
    return factors


def _layers_after(name: str, stacks: dict[str, list[str]], order: dict[str, int]) -> int:
    """Return how many layers follow the parameter's: blocks, and what stands after all blocks."""
    for blocks in stacks.values():
        for place, block in enumerate(blocks):
            if name.startswith(f"{block}."):
                return len(blocks) - place
    # the smallest module that holds both the parameter and blocks
    owner = name
    while owner:
        owner = owner.rpartition(".")[0]
        prefix = f"{owner}." if owner else ""
        beside = [blocks for blocks in stacks.values() if blocks[0].startswith(prefix)]
        if beside:
            starts = [min(order[n] for n in order if n.startswith(f"{b[0]}.")) for b in beside]
            following = bisect_right(starts, order[name])
            return len(beside[following]) + 1 if following < len(beside) else 0
    return 0
