"""FAST: action chunks as byte-pair tokens of their cosine transform (Pertsch et al. 2025).

A chunk (H A) is transformed along H, dimension by dimension (DCT-II, orthonormal); coefficients are
multiplied by `scale` and rounded. Flattened frequency by frequency, so that the lowest frequency of
all dimensions comes first, they become characters, and byte-pair encoding merges frequent runs of
these. The tokens of a fitted tokenizer are those of the published code for the same merges; two
things differ on purpose. The alphabet holds exactly the bytes that coefficients in the fitted range
need, so that every chunk can be encoded, and coefficients are clipped at both ends of that range.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from scipy.fft import dct, idct

from core import DataError, import_optional, one_line, written_aside

FORMAT = "FAST tokenizer of Joinery, version 1"
# The largest number that a character can stand for; above it are code points that UTF-8 lacks.
LARGEST = 0xD7FF
# what the decoder puts in place of bytes that are no character
NO_CHARACTER = 0xFFFD


@dataclass(frozen=True)
class FastTokenizer:
    """Turns normalised action chunks into tokens and back.

    scale: factor of the coefficients before they are rounded; a larger one is more exact, and gives
        more tokens.
    low, high: the smallest and the largest rounded coefficient of the chunks that it was fitted to.
    horizon, dim: shape of a chunk (H A).
    longest: number of tokens of the longest chunk that it was fitted to.
    bpe: the byte-pair encoding, a tokenizers.Tokenizer.
    """

    scale: float
    low: int
    high: int
    horizon: int
    dim: int
    longest: int
    bpe: Any

    @property
    def size(self) -> int:
        """Number of different tokens."""
        return int(self.bpe.get_vocab_size())

    def encode(self, chunks: np.ndarray) -> list[list[int]]:
        """Chunks (n H A) -> the tokens of each, at least one and at most H * A * 3."""
        coefficients = np.clip(quantize(chunks, self.scale), self.low, self.high)
        encodings = self.bpe.encode_batch(list(_texts(coefficients, self.low)))
        return [encoding.ids for encoding in encodings]

    def decode(self, tokens: Sequence[Sequence[int]]) -> np.ndarray:
        """Tokens of n chunks -> chunks (n H A) float32; every sequence of tokens gives a chunk.

        Coefficients that are missing at the end, which are those of the highest frequencies, are 0,
        and so are bytes that are no character. Surplus coefficients are dropped, and coefficients
        outside the fitted range are clipped.
        """
        size = self.horizon * self.dim
        coefficients = np.zeros((len(tokens), size))
        texts = self.bpe.decode_batch([list(ids) for ids in tokens], skip_special_tokens=False)
        for row, text in zip(coefficients, texts, strict=True):
            codes = np.array([ord(character) for character in text[:size]], np.int64)
            values = np.clip(codes + self.low, self.low, self.high)
            row[: len(codes)] = np.where(codes == NO_CHARACTER, 0, values)
        coefficients = coefficients.reshape(-1, self.horizon, self.dim) / self.scale
        chunks: np.ndarray = idct(coefficients, axis=1, norm="ortho")
        return chunks.astype(np.float32)

    def save(self, path: Path) -> None:
        """Write the tokenizer as JSON."""
        plain = {
            "format": FORMAT,
            "scale": self.scale,
            "low": self.low,
            "high": self.high,
            "horizon": self.horizon,
            "dim": self.dim,
            "longest": self.longest,
            "bpe": json.loads(self.bpe.to_str()),
        }
        with written_aside(path) as aside:
            aside.write_text(json.dumps(plain, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a tokenizer; raises DataError if the file is missing or none of `save`.

        Raises ConfigError if the library tokenizers is not installed.
        """
        library = import_optional("tokenizers", "fast")
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))
            if plain["format"] != FORMAT:
                raise ValueError(f"its format is {plain['format']!r}")
            numbers = {name: int(plain[name]) for name in ("low", "high", "horizon", "dim")}
            return cls(
                scale=float(plain["scale"]),
                longest=int(plain["longest"]),
                bpe=library.Tokenizer.from_str(json.dumps(plain["bpe"])),
                **numbers,
            )
        except Exception as error:  # tokenizers raises plain exceptions
            raise DataError(
                f"'{path}' cannot be read as a FAST tokenizer ({one_line(error)}); "
                "make one with `joinery tokenizer fast RECIPE OUT.json`"
            ) from error


def fit(chunks: np.ndarray, scale: float, vocabulary: int) -> FastTokenizer:
    """Fit the range of coefficients and the byte-pair merges to normalised chunks (n H A).

    vocabulary: largest number of tokens; there are fewer if the chunks offer fewer merges.

    The same chunks give the same tokenizer. Raises DataError if the vocabulary cannot hold the
    alphabet, and ConfigError if the library tokenizers is not installed.
    """
    library = import_optional("tokenizers", "fast")
    coefficients = quantize(chunks, scale)
    low, high = int(coefficients.min()), int(coefficients.max())
    if high - low > LARGEST:
        raise DataError(
            f"coefficients reach from {low} to {high}, more than {LARGEST} numbers; give a smaller "
            "--scale, or another action.normalization"
        )
    byte_level = library.pre_tokenizers.ByteLevel
    every_number = "".join(map(chr, range(high - low + 1)))
    splitter = byte_level(add_prefix_space=False, use_regex=False)
    alphabet = sorted({c for text, _ in splitter.pre_tokenize_str(every_number) for c in text})
    if len(alphabet) > vocabulary:
        raise DataError(
            f"a vocabulary of {vocabulary} tokens cannot hold the {len(alphabet)} bytes of "
            f"coefficients from {low} to {high}; give --vocabulary {len(alphabet)} or more, "
            "or a smaller --scale"
        )
    # The splitting of a text before merges are sought, and the least frequency, are the published.
    bpe = library.Tokenizer(library.models.BPE())
    bpe.pre_tokenizer = byte_level(add_prefix_space=False)
    bpe.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        show_progress=False,
        initial_alphabet=alphabet,
    )
    bpe.train_from_iterator(_texts(coefficients, low), trainer)
    horizon, dim = chunks.shape[1:]
    fitted = FastTokenizer(float(scale), low, high, horizon, dim, 1, bpe)
    return replace(fitted, longest=max(map(len, fitted.encode(chunks))))


def quantize(chunks: np.ndarray, scale: float) -> np.ndarray:
    """Chunks (n H A) -> rounded coefficients (n H*A) int64, those of the lowest frequency first."""
    coefficients = dct(chunks, axis=1, norm="ortho") * scale
    rounded: np.ndarray = np.around(coefficients).astype(np.int64)
    return rounded.reshape(len(chunks), -1)


def fill_masked(actions: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Replace each masked action (... H A) by the last one before it that is not, or by 0.

    So a chunk past the end of its episode stays where it was, and a dimension that a robot lacks
    is 0, whatever masked actions hold.
    """
    steps = np.arange(actions.shape[-2])[:, None]
    latest = np.maximum.accumulate(np.where(mask, steps, -1), axis=-2)
    filled = np.take_along_axis(actions, latest.clip(min=0), axis=-2).astype(np.float32)
    filled[latest < 0] = 0
    return filled


def _texts(coefficients: np.ndarray, low: int) -> Iterator[str]:
    """Yield the characters of each row of coefficients (n H*A); `low` is character 0."""
    for row in (coefficients - low).tolist():
        yield "".join(map(chr, row))
