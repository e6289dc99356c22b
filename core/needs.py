"""What policy heads need of the context against what the other parts offer: checked before anything is built."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:  # recipes are checked, and schemas written, without waiting for torch
    from core.contracts import Backbone
    from core.plugins import Catalogue
    from core.recipe import Part
    from core.registry import Component

Need = Literal["tokens", "keys_values", "hidden_states", "extend", "vision", "proprio", "logits"]
LAYERS: frozenset[Need] = frozenset({"keys_values", "hidden_states", "extend"})  # what only `Backbone.remember` gives
MEANING = {
    "keys_values": "the keys and values of every layer",
    "hidden_states": "the hidden states of every layer",
    "extend": "to run further tokens through the backbone",
}
COMPUTES_WITH_OTHERS = frozenset({"extend", "logits"})  # a head that does trains the weights of other parts in any case


def needs_of(component: "Component") -> frozenset[Need] | None:
    """What a head's class says that it needs; None where a function builds the head, or the class cannot say."""
    needs = getattr(component.build, "needs", None)
    return frozenset(needs) if isinstance(needs, frozenset | set | list | tuple) else None


def complaints(needs: frozenset[Need], insulate: bool, backbone: "Backbone | type[Backbone]") -> Iterator[str]:
    """Say why a head's needs cannot be met, whatever the data; each reads on from the name of the head."""
    if unknown := needs - {*get_args(Need)}:
        yield f"needs {', '.join(sorted(unknown))}, which nothing offers; there are {', '.join(get_args(Need))}"
    if insulate and needs & COMPUTES_WITH_OTHERS:
        yield "computes with weights of other parts, which learn from it in any case; drop insulate"
    for need in sorted(needs & LAYERS - backbone.offers):
        reason = f" ({backbone.obstacle})" if backbone.obstacle else ""
        yield f"needs {MEANING[need]}, and this backbone does not offer it{reason}"
    if not backbone.mixes and not needs & {"tokens", "vision"}:
        yield "reads action tokens, and this backbone shows them nothing; choose another backbone"


def unmet_needs(
    parts: Mapping[Any, "Part | None"], auxiliary: Mapping[str, "Part"], catalogue: "Catalogue"
) -> Iterator[str]:
    """Say what heads need and the chosen backbone or text encoder does not offer, one line each.

    Components say it on the classes that they registered. What functions build is checked once it is built. Parts that
    are wrong in themselves are None.
    """
    heads = {"policy_head": parts.get("policy_head")}
    heads |= {f"auxiliary '{label}'": head for label, head in auxiliary.items()}
    backbone, text = (_class_of(parts.get(kind)) for kind in ("backbone", "text_encoder"))
    for where, head in heads.items():
        needs = needs_of(head.component) if head else None
        if head is None or needs is None:
            continue
        what = f"{where}.name: '{head.component.name}'"
        if backbone is not None:
            reasons = complaints(needs, bool(head.role and head.role.insulate), backbone)
            yield from (f"{what} {reason}{_able(needs, catalogue)}" for reason in reasons)
        if text is not None and "logits" in needs and not hasattr(text, "logits"):
            able = [c.name for c in catalogue["text_encoder"] if hasattr(c.build, "logits")]
            yield f"{what} needs the output layer of a text encoder, and this one has none; choose {_either(able)}"


def _class_of(part: "Part | None") -> Any:
    """The class that a part's plugin registered; None where it is a function."""
    return part.component.build if part is not None and isinstance(part.component.build, type) else None


def _able(needs: frozenset[Need], catalogue: "Catalogue") -> str:
    """Name the backbones that offer all layers that are needed."""
    if not needs & LAYERS:
        return ""
    able = [c.name for c in catalogue["backbone"] if needs & LAYERS <= getattr(c.build, "offers", frozenset())]
    return f"; layers are offered by {_either(able)}"


def _either(names: list[str]) -> str:
    return " or ".join(f"'{name}'" for name in names) or "no component that is installed"
