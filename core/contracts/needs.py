"""What policy heads need of the context, compared with what a backbone offers.

This module does not import torch, which loads slowly: recipes are checked, and their schema is
written, without torch.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from core.contracts.parts import Backbone

# What a head can read of the context in addition to the readout.
Need = Literal["tokens", "keys_values", "hidden_states", "extend", "vision", "proprio", "logits"]
# the needs that a backbone can meet only with `remember`
LAYERS: frozenset[Need] = frozenset({"keys_values", "hidden_states", "extend"})
DESCRIPTIONS = {
    "keys_values": "the keys and values of every layer",
    "hidden_states": "the hidden states of every layer",
    "extend": "to run further tokens through the backbone",
}
# A head with one of these needs itself runs layers of the backbone or of the text encoder. So the
# head's loss sends gradients to the weights of these layers even if the head is insulated:
# `insulate` only detaches the tensors of the context.
RUNS_OTHER_PARTS = frozenset({"extend", "logits"})


def declared_needs(build: Callable[..., Any]) -> frozenset[Need] | None:
    """Return the needs that a head's class declares; None if only a built head has them.

    That is so if `build` is a function, or if the class computes `needs` for each instance.
    """
    needs = getattr(build, "needs", None)
    return frozenset(needs) if isinstance(needs, frozenset | set | list | tuple) else None


def unmet_needs(
    needs: frozenset[Need], insulate: bool, backbone: "Backbone | type[Backbone]"
) -> Iterator[str]:
    """Yield each reason why a head cannot work with a backbone, as the end of "head 'name' ..."."""
    if unknown := needs - {*get_args(Need)}:
        yield (
            f"needs {', '.join(sorted(unknown))}, which nothing offers; "
            f"there are {', '.join(get_args(Need))}"
        )
    if insulate and needs & RUNS_OTHER_PARTS:
        yield "runs weights of other parts, and always sends gradients to them; drop insulate"
    lacking = needs & LAYERS - backbone.offers
    for need in sorted(lacking):
        reason = f" ({backbone.obstacle})" if backbone.obstacle else ""
        yield (
            f"needs {DESCRIPTIONS[need]}, and this backbone does not offer it{reason}; "
            "choose another backbone or head"
        )
    if not lacking and not backbone.mixes and not needs & {"tokens", "vision"}:
        yield (
            "reads action tokens, and in this backbone they see no other tokens; "
            "choose another backbone"
        )
