"""Joinery's public surface: all that a plugin imports.

Names are looked up on first use, so that `import core` (and with it every `--help`) does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core.abilities import (
        Loadable as Loadable,
        Publishable as Publishable,
        Repeating as Repeating,
        Speaking as Speaking,
    )
    from core.attention import (
        attention_mask as attention_mask,
        positions as positions,
        remembered as remembered,
    )
    from core.context import Context as Context, ContextSpec as ContextSpec
    from core.contracts import (
        ActionSpec as ActionSpec,
        ActionTokens as ActionTokens,
        Backbone as Backbone,
        Batch as Batch,
        LayerSpec as LayerSpec,
        Memory as Memory,
        PolicyHead as PolicyHead,
        State as State,
        TextEncoder as TextEncoder,
        TokenGroup as TokenGroup,
        TokenKind as TokenKind,
        TokenSequence as TokenSequence,
        VisionEncoder as VisionEncoder,
    )
    from core.data.arrays import read_npy as read_npy, read_npz as read_npz
    from core.data.contracts import (
        ActionConvention as ActionConvention,
        Camera as Camera,
        Episode as Episode,
        EpisodeSink as EpisodeSink,
        EpisodeSource as EpisodeSource,
        Feature as Feature,
        FeatureMeaning as FeatureMeaning,
        Frame as Frame,
        Gripper as Gripper,
        Mode as Mode,
        Rotation as Rotation,
        StoreInfo as StoreInfo,
    )
    from core.data.features import decode_text as decode_text, encode_text as encode_text
    from core.data.formats import (
        Kind as Kind,
        Meaning as Meaning,
        as_pictures as as_pictures,
        check_mapping as check_mapping,
        correct_convention as correct_convention,
        decode_pictures as decode_pictures,
        describe_source as describe_source,
        dump_info as dump_info,
        first_readable as first_readable,
        is_unit as is_unit,
        join_columns as join_columns,
        kind_of as kind_of,
        load_info as load_info,
        numbered as numbered,
        one_line as one_line,
        raise_if_inflated as raise_if_inflated,
        size_of as size_of,
        width_of as width_of,
    )
    from core.data.statistics import Statistics as Statistics
    from core.errors import (
        DataError as DataError,
        JoineryError as JoineryError,
        RecipeError as RecipeError,
        did_you_mean as did_you_mean,
    )
    from core.generator import Generator as Generator
    from core.hookspecs import Register as Register, hookimpl as hookimpl
    from core.libraries import import_library as import_library, import_optional as import_optional
    from core.losses import (
        masked_bce as masked_bce,
        masked_huber as masked_huber,
        masked_l1 as masked_l1,
        masked_mean as masked_mean,
        masked_mean_per_sample as masked_mean_per_sample,
        masked_mse as masked_mse,
    )
    from core.policy_state import push_frame as push_frame
    from core.pretrained import (
        Names as Names,
        Pretrained as Pretrained,
        below as below,
        raise_unless_fitting as raise_unless_fitting,
        select as select,
    )
    from core.rollout.contracts import (
        Environment as Environment,
        Observation as Observation,
        Task as Task,
    )
    from core.tokens import concatenate as concatenate, pack as pack

_HOME = {
    "core.abilities": "Loadable Publishable Repeating Speaking",
    "core.attention": "attention_mask positions remembered",
    "core.context": "Context ContextSpec",
    "core.contracts": (
        "ActionSpec ActionTokens Backbone Batch LayerSpec Memory PolicyHead State TextEncoder TokenGroup TokenKind "
        "TokenSequence VisionEncoder"
    ),
    "core.data.arrays": "read_npy read_npz",
    "core.data.contracts": (
        "ActionConvention Camera Episode EpisodeSink EpisodeSource Feature FeatureMeaning Frame Gripper Mode Rotation "
        "StoreInfo"
    ),
    "core.data.features": "decode_text encode_text",
    "core.data.formats": (
        "Kind Meaning as_pictures check_mapping correct_convention decode_pictures describe_source dump_info "
        "first_readable is_unit join_columns kind_of load_info numbered one_line raise_if_inflated size_of width_of"
    ),
    "core.data.statistics": "Statistics",
    "core.errors": "DataError JoineryError RecipeError did_you_mean",
    "core.generator": "Generator",
    "core.hookspecs": "Register hookimpl",
    "core.libraries": "import_library import_optional",
    "core.losses": "masked_bce masked_huber masked_l1 masked_mean masked_mean_per_sample masked_mse",
    "core.pretrained": "Names Pretrained below raise_unless_fitting select",
    "core.rollout.contracts": "Environment Observation Task",
    "core.policy_state": "push_frame",
    "core.tokens": "concatenate pack",
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names.split()}
__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'core' has no attribute '{name}'; it offers {', '.join(__all__)}")
    return getattr(import_module(_MODULE_OF[name]), name)
