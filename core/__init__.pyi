from .api import (
    evaluate as evaluate,
    load_policy as load_policy,
    load_recipe as load_recipe,
    open_store as open_store,
    train as train,
    training_samples as training_samples,
)
from .commands.command import command as command
from .contracts.abilities import (
    Adaptable as Adaptable,
    CheckpointPublishable as CheckpointPublishable,
    HasAssumptions as HasAssumptions,
    HasBlocks as HasBlocks,
    HasFiles as HasFiles,
    HasOutputLayer as HasOutputLayer,
    HasTokenCount as HasTokenCount,
    HasUnknownToken as HasUnknownToken,
    Loadable as Loadable,
    Publishable as Publishable,
)
from .contracts.attention import (
    attention_mask as attention_mask,
    make_memory as make_memory,
    token_positions as token_positions,
)
from .contracts.batch import (
    Batch as Batch,
    Memory as Memory,
    PastActions as PastActions,
    State as State,
    TokenGroup as TokenGroup,
    TokenKind as TokenKind,
    TokenSequence as TokenSequence,
)
from .contracts.context import Context as Context, ContextSpec as ContextSpec
from .contracts.generator import Generator as Generator
from .contracts.monitoring import (
    Callback as Callback,
    Logger as Logger,
    Outcome as Outcome,
)
from .contracts.needs import Need as Need
from .contracts.parts import (
    ActionSpec as ActionSpec,
    ActionTokens as ActionTokens,
    Backbone as Backbone,
    LayerSpec as LayerSpec,
    PolicyHead as PolicyHead,
    TextEncoder as TextEncoder,
    VisionEncoder as VisionEncoder,
)
from .contracts.tokens import concatenate as concatenate, mean_token as mean_token, pack as pack
from .errors import (
    CheckpointError as CheckpointError,
    ConfigError as ConfigError,
    DataError as DataError,
    JoineryError as JoineryError,
    PluginError as PluginError,
    PolicyError as PolicyError,
    TrainingError as TrainingError,
    did_you_mean as did_you_mean,
)
from .policy.action_dimensions import ActionDimensions as ActionDimensions
from .policy.attention import attend as attend
from .policy.images import carry_cameras as carry_cameras, resize_images as resize_images
from .policy.keypoints import expected_places as expected_places
from .policy.losses import (
    masked_bce as masked_bce,
    masked_huber as masked_huber,
    masked_l1 as masked_l1,
    masked_mean as masked_mean,
    masked_mean_per_sample as masked_mean_per_sample,
    masked_mse as masked_mse,
)
from .policy.mlp import build_mlp as build_mlp
from .policy.readout_window import ReadoutWindow as ReadoutWindow
from .policy.regression import ChunkRegression as ChunkRegression
from .policy.resnet import (
    build_resnet as build_resnet,
    resnet_blocks as resnet_blocks,
    resnet_tensors as resnet_tensors,
)
from .policy.state import push_frame as push_frame
from .registry.hookspecs import Register as Register, hookimpl as hookimpl
from .system.files import written_aside as written_aside
from .system.links import open_to_append as open_to_append
from .system.optional_imports import import_optional as import_optional
from .system.strict import one_line as one_line
from .system.torchvision import import_library as import_library
