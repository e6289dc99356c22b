"""Heads that write an action chunk as a sequence of tokens: "bins" and "fast".

What both share is in three modules: vocabulary.py embeds and scores tokens, decoders.py predicts
them in parallel or one after another, and predictor.py chooses among them.
"""

from core import Register, hookimpl
from plugins.heads.tokens.bins import BinsConfig, BinsHead
from plugins.heads.tokens.fast import FastConfig, FastHead


@hookimpl
def register_policy_heads(register: Register) -> None:
    """Register "bins" and "fast"."""
    register("bins", BinsConfig, BinsHead)
    register("fast", FastConfig, FastHead)
