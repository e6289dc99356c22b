"""What a recipe's policy heads need against what its other parts offer."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from core.contracts.needs import LAYERS, Need, complaints, needs_of
from core.registry.catalogue import Catalogue

if TYPE_CHECKING:
    from core.recipe.recipe import Part


def unmet_needs(
    parts: Mapping[Any, "Part | None"], auxiliary: Mapping[str, "Part"], catalogue: "Catalogue"
) -> Iterator[str]:
    """Say what heads need and the chosen backbone or text encoder does not offer, one line each.

    Components say it on the classes that they registered. What functions build is checked once it
    is built. Parts that are wrong in themselves are None.
    """
    heads = {"policy_head": parts.get("policy_head")}
    heads |= {f"auxiliary '{label}'": head for label, head in auxiliary.items()}
    backbone, text = (_class_of(parts.get(kind)) for kind in ("backbone", "text_encoder"))
    for where, head in heads.items():
        needs = needs_of(head.component.build) if head else None
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
    return (
        part.component.build
        if part is not None and isinstance(part.component.build, type)
        else None
    )


def _able(needs: frozenset[Need], catalogue: "Catalogue") -> str:
    """Name the backbones that offer all layers that are needed."""
    if not needs & LAYERS:
        return ""
    able = [
        c.name
        for c in catalogue["backbone"]
        if needs & LAYERS <= getattr(c.build, "offers", frozenset())
    ]
    return f"; layers are offered by {_either(able)}"


def _either(names: list[str]) -> str:
    return " or ".join(f"'{name}'" for name in names) or "no component that is installed"
