"""SentencePiece tokens, their learned embedding, and optionally a small transformer on top."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn
from torch.nn import functional as F

from core import DataError, Register, TextEncoder, TokenGroup, hookimpl
from core.weights import carry_rows

SHIPPED = Path(__file__).with_name("robot_instructions.model")


@dataclass(frozen=True)
class SentencePieceConfig:
    """An embedding table over the pieces of a SentencePiece model (Kudo and Richardson 2018)."""

    model: Path | None = None
    """a trained .model file, as `joinery tokenizer train` writes it; default: the one that ships
    with Joinery.
    """
    width: Annotated[int, Gt(0)] = 128
    """width of every token."""
    layers: Annotated[int, Ge(0)] = 0
    """number of pre-norm transformer layers over the embeddings; with 0, only the backbone mixes
    tokens.
    """
    heads: Annotated[int, Gt(0)] = 4
    """number of attention heads per layer; the width must be a multiple of this number."""
    max_tokens: Annotated[int, Gt(0)] = 64
    """maximum number of tokens in an instruction."""
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.0
    """probability of dropout in the layers while training."""

    def __post_init__(self) -> None:
        if self.layers and self.width % self.heads:
            raise ValueError(
                f"heads = {self.heads} does not divide width = {self.width}; choose a divisor"
            )


class SentencePieceEncoder(TextEncoder):
    """Embeds the pieces of an instruction.

    Raises DataError if the .model cannot be read.
    """

    def __init__(self, config: SentencePieceConfig) -> None:
        super().__init__()
        self.width = config.width
        self.max_tokens = config.max_tokens
        self.processor = _load_model(config.model or SHIPPED)
        self.embedding = nn.Embedding(self.processor.get_piece_size(), config.width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.vocabulary = self.embedding.num_embeddings
        self.unknown_id = self.processor.unk_id()
        self.layers: nn.TransformerEncoder | None = None
        # Only the layers here need position embeddings; the backbone has its own positions.
        self.positions: nn.Parameter | None = None
        if config.layers:
            self.layers = _build_layers(config)
            table = torch.randn(config.max_tokens, config.width) * 0.02
            self.positions = nn.Parameter(table)

    def tokenize(self, instruction: str) -> Sequence[int]:
        """Return the ids of an instruction's pieces.

        Raises DataError for an instruction that is empty, too long or no valid Unicode.
        """
        try:
            ids: list[int] = self.processor.encode(instruction)
        except (RuntimeError, UnicodeError) as error:  # UTF-8 cannot encode a lone surrogate
            raise DataError(
                f"the instruction {instruction[:60]!r} is no valid Unicode; write it again"
            ) from error
        if not ids:
            raise DataError(
                f"the instruction {instruction!r} is empty; give every episode an instruction"
            )
        if len(ids) > self.max_tokens:
            start = " ".join(instruction[:60].split())
            raise DataError(
                f"the instruction '{start}...' has {len(ids)} tokens and text_encoder.max_tokens "
                f"is {self.max_tokens}; shorten it or raise text_encoder.max_tokens"
            )
        return ids

    def forward(self, ids: Tensor, mask: Tensor | None) -> TokenGroup:
        """Embed ids (B N) int64 with mask (B N) bool, True for real tokens -> (B N width)."""
        x = self.embedding(ids)
        if self.layers is not None and self.positions is not None:
            x = self.layers(
                x + self.positions[: ids.shape[1]],
                src_key_padding_mask=None if mask is None else ~mask,
            )
        return TokenGroup(x, mask)

    def embed(self, ids: Tensor) -> Tensor:
        """Ids (B n) int64 -> the pieces' embeddings (B n width), before any layer mixes them."""
        embeddings: Tensor = self.embedding(ids)
        return embeddings

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (... width) -> scores of all pieces (... vocabulary).

        The output layer is the embedding table (Press and Wolf 2017).
        """
        return F.linear(hidden, self.embedding.weight)

    @property
    def pieces(self) -> list[str]:
        """The pieces of the vocabulary, in the order of their ids."""
        return [self.processor.id_to_piece(i) for i in range(self.processor.get_piece_size())]

    def adapt(self, former: Self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Take the embedding of each piece that both vocabularies have, and the first positions.

        A piece that is new keeps its random embedding, and so do positions beyond the former ones.
        """
        adapted = dict(tensors)
        rows = {piece: row for row, piece in enumerate(former.pieces)}
        pairs = [(new, rows[piece]) for new, piece in enumerate(self.pieces) if piece in rows]
        if pairs and former.width == self.width:
            embedding = self.embedding.weight.detach().clone()
            new, old = map(list, zip(*pairs, strict=True))
            embedding[new] = tensors["embedding.weight"][old].to(embedding.dtype)
            adapted["embedding.weight"] = embedding
        if self.positions is not None and "positions" in tensors and former.width == self.width:
            adapted["positions"] = carry_rows(self.positions, tensors["positions"])
        return adapted


def _build_layers(config: SentencePieceConfig) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(
        config.width,
        config.heads,
        dim_feedforward=4 * config.width,
        dropout=config.dropout,
        activation="gelu",
        batch_first=True,
        norm_first=True,
    )
    return nn.TransformerEncoder(
        layer, config.layers, nn.LayerNorm(config.width), enable_nested_tensor=False
    )


def _load_model(path: Path) -> Any:
    from sentencepiece import SentencePieceProcessor

    try:
        return SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"text_encoder.model: '{path}' cannot be read as a SentencePiece model; "
            "make one with `joinery tokenizer train`, or leave the key out for the shipped one"
        ) from error


@hookimpl
def register_text_encoders(register: Register) -> None:
    """Register "sentencepiece"."""
    register("sentencepiece", SentencePieceConfig, SentencePieceEncoder)
