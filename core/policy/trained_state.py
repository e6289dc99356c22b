"""What a checkpoint says about acting beside the weights: the data's info, and normalisers."""

from typing import Any

from pydantic import TypeAdapter, ValidationError

from core.episodes.episode import StoreInfo
from core.episodes.normalization import Normalizer, ProprioNormalizer
from core.errors import CheckpointError, ConfigError, did_you_mean
from core.weights.checkpoint import Checkpoint


def read_state(
    checkpoint: Checkpoint, store: str | None = None
) -> tuple[StoreInfo, Normalizer, ProprioNormalizer]:
    """Read from a checkpoint the info of the training data, and the normalisers of one store.

    store: label of the store; None for the first store.

    Raises ConfigError if there is no such store, and CheckpointError if the checkpoint does not say
    how to act.
    """
    state = checkpoint.state
    stores = state.get("stores", {})
    if store is not None and store not in stores:
        hint = did_you_mean(store, list(stores))
        if not stores:
            hint = "; it was trained on one store alone"
        raise ConfigError(f"evaluate.store: {checkpoint.folder} knows none called '{store}'{hint}")
    try:
        info: dict[str, Any] = {key: state[key] for key in ("fps", "cameras", "proprio")}
        info["action"] = state["action_convention"]
        since = ("features", "assumed", "proprio_units")  # older checkpoints have none of these
        info |= {key: state[key] for key in since if key in state}
        normalizers = state if store is None else stores[store]
        return (
            TypeAdapter(StoreInfo).validate_python(info),
            Normalizer.from_json(normalizers["action_normalizer"]),
            ProprioNormalizer.from_json(normalizers["proprio_normalizer"]),
        )
    except (KeyError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{checkpoint.folder / 'state.json'}: does not say how to act ({reason}); "
            "train again with this version"
        ) from None
