"""Episodes and what their numbers mean."""

from core.episodes.episode import (
    ActionConvention as ActionConvention,
    Camera as Camera,
    Episode as Episode,
    Feature as Feature,
    FeatureMeaning as FeatureMeaning,
    Frame as Frame,
    Gripper as Gripper,
    Mode as Mode,
    Number as Number,
    Rotation as Rotation,
    StoreInfo as StoreInfo,
)
from core.episodes.frames import Frames as Frames, Images as Images, images_of as images_of
from core.episodes.statistics import Statistics as Statistics
from core.episodes.text import decode_text as decode_text, encode_text as encode_text
