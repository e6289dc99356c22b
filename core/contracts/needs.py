"""What policy heads need of the context against what the other parts offer: checked before anything
is built.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:  # recipes are checked, and schemas written, without waiting for torch
    from core.contracts.parts import Backbone

Need = Literal["tokens", "keys_values", "hidden_states", "extend", "vision", "proprio", "logits"]
LAYERS: frozenset[Need] = frozenset(
    {"keys_values", "hidden_states", "extend"}
)  # what only `Backbone.remember` gives
MEANING = {
    "keys_values": "the keys and values of every layer",
    "hidden_states": "the hidden states of every layer",
    "extend": "to run further tokens through the backbone",
}
COMPUTES_WITH_OTHERS = frozenset(
    {"extend", "logits"}
)  # a head that does trains the weights of other parts in any case


def needs_of(build: Callable[..., Any]) -> frozenset[Need] | None:
    """What a head's class says that it needs; None where a function builds the head, or the class
    cannot say.
    """
    needs = getattr(build, "needs", None)
    return frozenset(needs) if isinstance(needs, frozenset | set | list | tuple) else None


def complaints(
    needs: frozenset[Need], insulate: bool, backbone: "Backbone | type[Backbone]"
) -> Iterator[str]:
    """Say why a head's needs cannot be met, whatever the data; each reads on from the name of the
    head.
    """
    if unknown := needs - {*get_args(Need)}:
        yield f"needs {', '.join(sorted(unknown))}, which nothing offers; there are {', '.join(get_args(Need))}"
    if insulate and needs & COMPUTES_WITH_OTHERS:
        yield "computes with weights of other parts, which learn from it in any case; drop insulate"
    for need in sorted(needs & LAYERS - backbone.offers):
        reason = f" ({backbone.obstacle})" if backbone.obstacle else ""
        yield f"needs {MEANING[need]}, and this backbone does not offer it{reason}"
    if not backbone.mixes and not needs & {"tokens", "vision"}:
        yield "reads action tokens, and this backbone shows them nothing; choose another backbone"
