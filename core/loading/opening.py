"""Opens the stores that a recipe's [data] names, and holds the recipe against them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from core.episodes.conventions import rotation_names
from core.episodes.episode import ActionConvention, StoreInfo
from core.episodes.normalization import Normalizer, ProprioNormalizer
from core.errors import ConfigError, DataError, did_you_mean
from core.loading.dataset import Dataset
from core.loading.training_data import TrainingData
from core.loading.value_checks import meaningless_normalization
from core.loading.view import StoreView, common_info, view_of
from core.recipe.contents import Recipe
from core.recipe.sections import ActionConfig
from core.store.location import URL
from core.store.store import EpisodeStore


def open_data(recipe: Recipe) -> TrainingData:
    """Open a recipe's stores and fit the normalisers.

    Raises DataError for damaged data, and ConfigError if the recipe and the stores disagree.
    """
    views = open_views(recipe)
    configs = recipe.data.store_configs
    info = views[0].info
    if mistakes := _unexpected_conventions(recipe.action, info.action):
        raise ConfigError([f"{mistake} (store {configs[0].path})" for mistake in mistakes])
    if mistakes := _unknown_constants(recipe, info):
        raise ConfigError(mistakes)
    datasets = []
    for config, view in zip(configs, views, strict=True):
        # a single store gets no label, so that the store may be moved or renamed between runs
        label = config.label if recipe.data.stores else ""
        datasets.append(Dataset(view, *fit_normalizers(view, recipe), label))
        mistakes += [
            f"{line} (store {config.path})" for line in meaningless_normalization(datasets[-1])
        ]
    if mistakes:
        raise ConfigError(mistakes)
    return TrainingData(recipe, tuple(datasets))


def fit_normalizers(view: StoreView, recipe: Recipe) -> tuple[Normalizer, ProprioNormalizer]:
    """Fit the normalisers of actions and of proprioception to a store, as a recipe says.

    Raises DataError if the statistics do not fit the actions.
    """
    action, proprio = view.info.action, view.info.proprio
    return (
        Normalizer.fit(
            view.statistics["action"],
            action,
            recipe.action.normalization,
            recipe.action.clip_range,
            [action.names.index(name) for name in recipe.action.constant],
        ),
        ProprioNormalizer.fit(
            view.statistics["proprio"],
            [proprio.index(name) for name in recipe.data.constant_proprio],
            recipe.data.proprio_normalization,
        ),
    )


def open_views(recipe: Recipe) -> list[StoreView]:
    """Open a recipe's stores and view each as the policy sees it.

    Raises DataError for damaged data, and ConfigError with every disagreement between the recipe
    and the stores.
    """
    configs = recipe.data.store_configs
    stores = [
        _open_store(config.path, "data.path" if recipe.data.path else f"data.stores.{number}.path")
        for number, config in enumerate(configs)
    ]
    mistakes: list[str] = []
    infos = []  # descriptions of the stores, under the policy's names
    for store, config in zip(stores, configs, strict=True):
        try:
            infos.append(config.new_names.rename(store.info))
        except DataError as error:
            mistakes.append(f"data.stores, '{config.label}': {error} (store {config.path})")
            infos.append(store.info)
    paths = f"(store {', '.join(str(config.path) for config in configs)})"
    cameras = sorted({name for info in infos for name in info.cameras})
    features = sorted({name for info in infos for name in info.features})
    mistakes += _unknown_names("data.cameras", "camera", recipe.data.cameras, cameras, paths)
    mistakes += _unknown_names("data.features", "feature", recipe.data.features, features, paths)
    views = [] if mistakes else _common_views(recipe, stores, infos, mistakes)
    if mistakes:
        raise ConfigError(mistakes)
    return views


def _open_store(path: Path | URL, key: str) -> EpisodeStore:
    """Open a store; an error begins with the key of the recipe that names the store."""
    try:
        return EpisodeStore(path)
    except DataError as error:
        raise DataError(f"{key}: {error}") from error


def _unknown_names(
    key: str, noun: str, names: Sequence[str], known: Sequence[str], paths: str
) -> list[str]:
    """Return a mistake for each name under a key of the recipe that no store has.

    noun: what the names stand for, "camera" for example.
    """
    return [
        f"{key}: no {noun} '{name}'{did_you_mean(name, known)} {paths}"
        for name in names
        if name not in known
    ]


def _unknown_constants(recipe: Recipe, info: StoreInfo) -> list[str]:
    """Return a mistake for each constant dimension of the recipe that the policy does not see."""
    paths = f"(store {', '.join(str(config.path) for config in recipe.data.store_configs)})"
    actions, proprio = recipe.action.constant, recipe.data.constant_proprio
    return [
        *_unknown_names("action.constant", "action", actions, info.action.names, paths),
        *_unknown_names("data.constant_proprio", "number", proprio, info.proprio, paths),
    ]


def _common_views(
    recipe: Recipe,
    stores: Sequence[EpisodeStore],
    infos: Sequence[StoreInfo],
    mistakes: list[str],
) -> list[StoreView]:
    """View all stores in the same way; append a mistake for each reason why a store does not fit.

    infos: the descriptions of the stores under the policy's names.
    """
    configs = recipe.data.store_configs
    try:
        common = common_info(infos, recipe.data.cameras, recipe.data.features)
    except DataError as error:
        mistakes.append(f"data.{error}")
        return []
    views = []
    rotation_dimensions = rotation_names([info.action for info in infos])
    for store, info, config in zip(stores, infos, configs, strict=True):
        try:
            views.append(view_of(store, info, config.cameras, common, rotation_dimensions))
        except DataError as error:
            pair = f"'{config.label}' does not fit '{configs[0].label}'"
            mistakes += [f"data.stores: {pair}: {reason}" for reason in str(error).splitlines()]
    return views


def _unexpected_conventions(expected: ActionConfig, recorded: ActionConvention) -> list[str]:
    """Return a mistake for each difference between the actions and what the recipe expects."""
    gripper_kinds = sorted({gripper.kind for gripper in recorded.grippers})
    conventions: Mapping[str, object] = {
        "mode": recorded.mode,
        "frame": recorded.frame,
        "rotation": recorded.rotation,
        "gripper": "/".join(gripper_kinds) or "none",
        "rate": recorded.rate,
    }
    mistakes = []
    for key, convention in conventions.items():
        expectation = getattr(expected, key)
        if expectation is not None and expectation != convention:
            mistakes.append(
                f"action.{key}: the recipe expects {expectation!r}, "
                f"the store's actions are {convention!r}; correct the recipe, or what is wrong in "
                "the store with joinery edit"
            )
    return mistakes
