"""Compares what a recipe's heads need with what the recipe's other parts offer."""

from collections.abc import Iterator, Mapping
from typing import Any

from core.contracts.needs import LAYERS, declared_needs, unmet_needs
from core.recipe.contents import Part
from core.registry.catalogue import Catalogue
from core.registry.hookspecs import ComponentKind


def check_needs(
    parts: Mapping[ComponentKind, Part], auxiliary: Mapping[str, Part], catalogue: Catalogue
) -> Iterator[str]:
    """Yield a line for each need of a head that the backbone or the text encoder does not meet.

    parts: {kind: part}, without the parts whose sections have mistakes.
    auxiliary: {label: auxiliary head}.

    Only parts whose plugin registered a class can be compared here. A part whose plugin registered
    a function is compared after it is built.
    """
    heads = {"policy_head": parts.get("policy_head")}
    heads |= {f"auxiliary/{label}": head for label, head in auxiliary.items()}
    backbone = _class_of(parts.get("backbone"))
    text_encoder = _class_of(parts.get("text_encoder"))
    for where, head in heads.items():
        if head is None:
            continue
        needs = declared_needs(head.component.build)
        if needs is None:
            continue
        name = f"{where}.name: '{head.component.name}'"
        if backbone is not None:
            advice = ""
            if needs & LAYERS:
                capable = [
                    component.name
                    for component in catalogue["backbone"]
                    if needs & LAYERS <= getattr(component.build, "offers", frozenset())
                ]
                advice = f"; layers are offered by {_alternatives(capable)}"
            insulated = bool(head.kind_settings and head.kind_settings.insulate)
            for reason in unmet_needs(needs, insulated, backbone):
                yield f"{name} {reason}{advice}"
        if text_encoder is not None and "logits" in needs and not hasattr(text_encoder, "logits"):
            capable = [c.name for c in catalogue["text_encoder"] if hasattr(c.build, "logits")]
            yield (
                f"{name} needs the output layer of a text encoder, and this one has none; "
                f"choose {_alternatives(capable)}"
            )


def _class_of(part: "Part | None") -> Any:
    """Return the class that a part's plugin registered; None if it registered a function."""
    if part is None or not isinstance(part.component.build, type):
        return None
    return part.component.build


def _alternatives(names: list[str]) -> str:
    return " or ".join(f"'{name}'" for name in names) or "no component that is installed"
