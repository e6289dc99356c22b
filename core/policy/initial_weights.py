"""The weights with which training begins: published ones, those of a run, or random ones."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from core.contracts.abilities import Adaptable, Loadable
from core.errors import CheckpointError, ConfigError, did_you_mean
from core.policy.adapter_names import name_without_adapters
from core.policy.policy import Policy
from core.recipe.contents import Part, Recipe
from core.registry.components import KEYS_OF_EVERY_PART
from core.system.files import written_aside
from core.weights.pretrained import Pretrained, find_misfits, first_few
from core.weights.run_weights import Restore, RunWeights, is_run

# the file in a run's folder that holds its frozen weights from another run
KEPT = "frozen.safetensors"


def parts_and_heads(recipe: Recipe) -> Iterator[tuple[str, str, Part]]:
    """Yield for each part and head: its name in messages, its name in the policy, its section."""
    for kind, part in recipe.parts.items():
        yield kind, kind, part
    for label, part in recipe.auxiliary.items():
        yield f"auxiliary/{label}", f"auxiliary.{label}", part


def keeps_initial_weights(recipe: Recipe, name: str, part: Part) -> bool:
    """Whether a part's weights come from a source and stay, so that checkpoints leave them out."""
    has_source = part.settings.pretrained or not recipe.start.begins_anew(name)
    return bool(has_source) and part.settings.has_frozen_weights


def load_initial_weights(policy: Policy, recipe: Recipe, restore: Restore) -> None:
    """Load the weights that the recipe names for the parts; open each source once.

    `policy.origin` then says in a few lines what came from the run of [start].

    restore: builds the policy of a run with the weights of one of its checkpoints.

    Raises ConfigError if a source is not there, or lists all weights that do not fit.
    """
    names = [name for _, name, _ in parts_and_heads(recipe)]
    _load_sources(policy, recipe, restore, [n for n in names if recipe.start.begins_anew(n)])
    if recipe.start.run is not None:
        policy.origin = _start(policy, recipe, restore)


def load_frozen_weights(policy: Policy, recipe: Recipe, restore: Restore, kept: Path) -> None:
    """Load the weights that the checkpoints of a run leave out, for a checkpoint to be loaded next.

    kept: the run's file of frozen weights; the source of what it lacks is read again.

    Raises ConfigError as `load_initial_weights` does, or if the file's weights do not fit the
    parts, and CheckpointError for a damaged file.
    """
    parts = {n: part for _, n, part in parts_and_heads(recipe)}
    names = [name for name, part in parts.items() if keeps_initial_weights(recipe, name, part)]
    found = _load_kept(policy, kept, names)
    names = [n for n in names if n not in found and _leaves_out(policy.get_submodule(n))]
    try:
        _load_sources(policy, recipe, restore, [n for n in names if recipe.start.begins_anew(n)])
        if not all(map(recipe.start.begins_anew, names)):
            _start(policy, recipe, restore)
    except ConfigError as error:
        advice = (
            "the run's checkpoints leave these weights out: if their source has moved, say so by "
            "--moved OLD=NEW (in Python, moved={OLD: NEW}); or make the run hold them, where their "
            "source is: joinery run RUN/recipe.toml --resume train.keep_frozen=true"
        )
        raise ConfigError([*error.mistakes, advice]) from None


def _load_kept(policy: Policy, kept: Path, parts: Collection[str]) -> set[str]:
    """Load a run's file of frozen weights, if it is there; return which of the parts it holds."""
    if not kept.exists():
        return set()
    state = policy.state_dict()
    given = {name: x for name, x in _read_kept(kept).items() if name.partition(".")[0] in parts}
    expected = {name: x for name, x in state.items() if name in given}
    if misfits := find_misfits(expected, given):
        raise ConfigError(
            f"{kept}: does not fit the recipe's parts; {misfits}; these frozen weights stay as "
            "they are: give the parts their former settings, or start a new run with --output"
        )
    policy.load_state_dict(given, strict=False)
    return {name.partition(".")[0] for name in given}


def _leaves_out(module: nn.Module) -> bool:
    """Whether a part has weights that checkpoints may leave out; published ones are no extras."""
    extra_parameters = getattr(module, "extra_parameters", ())
    return any(name not in extra_parameters for name, _ in module.named_parameters())


def weights_to_keep(policy: Policy, recipe: Recipe) -> dict[str, Tensor]:
    """Return the frozen weights of which a run keeps a copy, so that their source may go.

    These are the weights that come from another run and, with `train.keep_frozen`, those that were
    published. Quantised weights are read from their source again. A checkpoint has the checksum of
    the weights as they are before training casts the policy, so call this function before that.

    Returns {name as it is without adapters: tensor}; the tensors are those of the policy.
    """
    parts = {name: part for _, name, part in parts_and_heads(recipe)}
    state = policy.state_dict()
    tensors = {}
    for name in sorted(policy.frozen_weights.names):
        part = name.partition(".")[0]
        is_kept = recipe.train.keep_frozen or comes_from_run(recipe, part)
        if is_kept and parts[part].settings.quantize is None:
            tensors[name_without_adapters(name)] = state[name].detach()
    return tensors


def keep_frozen_weights(tensors: Mapping[str, Tensor], kept: Path, *, resumed: bool) -> None:
    """Write the weights of `weights_to_keep` into a run's file, unless it holds them already.

    resumed: False if training begins, so that a file of an earlier beginning counts for nothing.

    Raises CheckpointError if that fails.
    """
    try:
        if not resumed:
            kept.unlink(missing_ok=True)
        if not tensors or (kept.exists() and tensors.keys() <= _names_in(kept)):
            return
        copies = {name: x.cpu().contiguous().clone() for name, x in tensors.items()}
        with written_aside(kept, durable=True) as aside:
            save_file(copies, aside)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{kept}: cannot save frozen weights: {error}; make room") from None


def _names_in(kept: Path) -> set[str]:
    with safe_open(kept, "pt") as file:
        return set(file.keys())


def _read_kept(kept: Path) -> dict[str, Tensor]:
    try:
        return load_file(kept)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{kept}: cannot read it ({error}): remove it to read its weights from the run that "
            "they come from"
        ) from None


def comes_from_run(recipe: Recipe, name: str) -> bool:
    """Whether the initial weights of a part are those of another run."""
    if not recipe.start.begins_anew(name):
        return True
    source = {n: part for _, n, part in parts_and_heads(recipe)}[name].settings.pretrained
    return isinstance(source, str) and is_run(source)


# ------------------------------------------------------------------- the key pretrained of a part


def _load_sources(policy: Policy, recipe: Recipe, restore: Restore, names: Collection[str]) -> None:
    """Load the weights that `pretrained` names in the sections of some parts."""
    runs: dict[str, RunWeights] = {}
    published: dict[str, Pretrained] = {}
    for where, name, part in parts_and_heads(recipe):
        source = part.settings.pretrained
        if not source or name not in names:
            continue
        try:
            if isinstance(source, str) and is_run(source):
                modules = _with_projection(policy, name)
                runs.setdefault(source, RunWeights(Path(source), restore)).load(modules)
            else:
                _load_published(policy.get_submodule(name), part, published)
        except ConfigError as error:
            raise ConfigError([f"{where}.{line}" for line in error.mistakes]) from None


def _with_projection(policy: Policy, name: str) -> dict[str, nn.Module]:
    """Return a part and, if it is an encoder, the projection of its tokens; each by its name."""
    modules = {name: policy.get_submodule(name)}
    modality = name.removesuffix("_encoder")
    if modality in policy.projections:
        modules[f"projections.{modality}"] = policy.projections[modality]
    return modules


def _load_published(module: nn.Module, part: Part, sources: dict[str, Pretrained]) -> None:
    """Load published weights into a part.

    sources: {source: its weights} of the sources that are open already; a further one is added.
    """
    name, pretrained = part.component.name, part.settings.pretrained
    if not isinstance(module, Loadable):
        no_run = "" if pretrained is True else f", and '{pretrained}' is no folder of a run"
        raise ConfigError(
            f"pretrained: '{name}' has no published weights to load{no_run}; name the folder of a "
            "run (with recipe.toml and checkpoints), or drop it"
        )
    source = module.source if pretrained is True else str(pretrained)
    if source is None:
        raise ConfigError(f"pretrained: '{name}' names no source; write a folder or a name")
    module.load_pretrained(sources.setdefault(source, Pretrained(source)))


# -------------------------------------------------------------------- the run that [start] names


def _start(policy: Policy, recipe: Recipe, restore: Restore) -> tuple[str, ...]:
    """Load the weights of the run that [start] names, except what begins anew.

    Returns lines that say what was taken, for people.

    Raises a ConfigError that lists all weights that do not fit, and how to begin those anew.
    """
    start, state = recipe.start, policy.state_dict()
    assert start.run is not None
    weights = RunWeights(
        start.run, restore, start.checkpoint, averages=start.averages, key="start.run"
    )
    expected = {name: x for name, x in state.items() if not start.begins_anew(name)}
    given: dict[str, Tensor] = {}
    adapted: list[str] = []
    for name in _modules(policy):
        tensors = dict(weights.tensors(name))
        changed = _adapt(policy, recipe, weights, name, tensors)
        adapted += [f"{name}.{key}" for key in changed]
        given |= {f"{name}.{key}": x for key, x in (tensors | changed).items()}
    _check_beginnings(start.anew, {*state, *given})
    given = {name: x for name, x in given.items() if not start.begins_anew(name)}
    misfits = find_misfits(expected, given)
    if misfits:
        source = f"start.run: '{weights.checkpoint.folder}' does not fit"
        raise ConfigError([f"{source}; {misfits}", _advice(expected, given)])
    policy.load_state_dict(given, strict=False)
    origin = f"began with the weights of {weights.run} at step {weights.checkpoint.step}"
    lines = [origin + (f"; anew: {', '.join(start.anew)}" if start.anew else "")]
    if adapted:
        lines.append(f"adapted to this recipe: {first_few(adapted)}")
    return tuple(lines)


def _modules(policy: Policy) -> list[str]:
    """Return the names of the parts, projections and auxiliary heads of a policy."""
    names = []
    for name, child in policy.named_children():
        several = name in ("projections", "auxiliary")
        names += [f"{name}.{key}" for key, _ in child.named_children()] if several else [name]
    return names


def _adapt(
    policy: Policy, recipe: Recipe, weights: RunWeights, name: str, tensors: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Return the weights that a part makes of those of the run's part, which has other settings.

    tensors: the weights of the run's part; those that the part does not use are removed.
    """
    module = policy.get_submodule(name)
    if not isinstance(module, Adaptable) or _is_alike(recipe, weights, name, module):
        return {}
    former = weights.module(name)
    if type(former) is not type(module):
        return {}
    made = module.adapt(former, tensors)
    changed = {
        key: x
        for key, x in made.items()
        if key not in tensors or x.shape != tensors[key].shape or not x.equal(tensors[key])
    }
    for key in tensors.keys() - made.keys():
        del tensors[key]
    return changed


def _is_alike(recipe: Recipe, weights: RunWeights, name: str, module: nn.Module) -> bool:
    """Whether the run's part has the settings, and sees the cameras, of this recipe's part."""
    part = recipe.parts.get(name)  # type: ignore[call-overload]
    if part is None:
        return True
    cameras = weights.checkpoint.state.get("cameras", {})
    if sorted(getattr(module, "cameras", cameras)) != sorted(cameras):
        return False
    own, theirs = part.as_dict(), weights.recipe.get(name, {})
    keys = {"name", *own, *theirs} - (KEYS_OF_EVERY_PART - {"name"})
    return all(own.get(key) == theirs.get(key) for key in keys)


def _check_beginnings(anew: Collection[str], names: Collection[str]) -> None:
    """Raise ConfigError if an entry of start.anew begins the name of no weight.

    names: names of the weights of this policy and of the run.
    """
    known = {
        ".".join(words[:count])
        for words in (name.split(".") for name in names)
        for count in range(1, len(words) + 1)
    }
    if unknown := [name for name in anew if name not in known]:
        raise ConfigError(
            [
                f"start.anew: no weight's name begins with '{name}'"
                f"{did_you_mean(name, sorted(known, key=len))}"
                for name in unknown
            ]
        )


def _advice(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """Return the line that says which start.anew would let training begin.

    A module that holds a weight that does not fit is named; a part of which hardly anything fits is
    named as a whole.
    """
    misfits = [
        name
        for name in sorted({*expected, *given})
        if name not in given or name not in expected or given[name].shape != expected[name].shape
    ]
    parts: dict[str, list[str]] = {}
    for name in misfits:
        words = name.split(".")
        depth = 2 if words[0] in ("projections", "auxiliary") else 1
        parts.setdefault(".".join(words[:depth]), []).append(name)
    beginnings: list[str] = []
    for part, names in parts.items():
        count = sum(name.startswith(f"{part}.") for name in expected)
        lacking = sum(name in expected for name in names)
        modules = dict.fromkeys(name.rpartition(".")[0] for name in names)
        beginnings += [part] if 2 * lacking > count else modules
    listed = ", ".join(f'"{name}"' for name in beginnings)
    return f"start.anew: to begin these anew, write anew = [{listed}] in [start]"
