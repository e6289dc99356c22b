"""The instructions of a recipe's data, tokenised and checked before the first training step."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from core.contracts.abilities import HasUnknownToken
from core.contracts.parts import TextEncoder
from core.errors import DataError, JoineryError

MOST_LINES = 8

# {instruction: its token ids}
TokensOf = Mapping[str, Sequence[int]]


def tokenize_instructions(instructions: Collection[str], encoder: TextEncoder) -> TokensOf:
    """Tokenise different instructions.

    Raises DataError with a line for each instruction that the encoder refuses, the longest first.
    If all known words of all instructions are the same, since the encoder does not know the others,
    raises DataError, too.
    """
    tokens: dict[str, Sequence[int]] = {}
    refusals: list[str] = []
    for instruction in sorted(instructions, key=len, reverse=True):
        try:
            tokens[instruction] = encoder.tokenize(instruction)
        except JoineryError as error:
            refusals.append(str(error))
    if len(refusals) > MOST_LINES:
        more = len(refusals) - MOST_LINES
        refusals[MOST_LINES:] = [f"{more} further instructions are refused by the text encoder"]
    if refusals:
        raise DataError("\n".join(refusals))
    if _count_unknown(tokens, encoder) and not _are_told_apart(tokens, encoder):
        raise DataError(
            f"text_encoder: it knows no word by which the {len(tokens)} instructions differ, "
            f"{_first(tokens)!r} for example; choose a model with their language, or train one "
            "(joinery tokenizer train)"
        )
    return tokens


def doubtful_tokens(tokens: TokensOf, encoder: TextEncoder) -> Iterator[str]:
    """Yield a line if some words are unknown to the encoder, and one if all tokens are the same."""
    unknown, total = _count_unknown(tokens, encoder), sum(map(len, tokens.values()))
    if unknown:
        concerned = [line for line, ids in tokens.items() if _unknown_id(encoder) in ids]
        yield (
            f"text_encoder: {unknown / total:.1%} of the instructions' tokens are unknown to it, "
            f"in {len(concerned)} of {len(tokens)} instructions, {concerned[0][:60]!r} for example"
        )
    if total and not _are_told_apart(tokens, encoder):
        yield (
            f"text_encoder: it gives the {len(tokens)} different instructions the same tokens, so "
            "no word has an effect"
        )


def _are_told_apart(tokens: TokensOf, encoder: TextEncoder) -> bool:
    """Whether known tokens differ between any two instructions, or there is only one."""
    texts = {" ".join(instruction.casefold().split()) for instruction in tokens}
    unknown = _unknown_id(encoder)
    known = {tuple(id_ for id_ in ids if id_ != unknown) for ids in tokens.values()}
    return len(texts) < 2 or len(known) > 1


def _count_unknown(tokens: TokensOf, encoder: TextEncoder) -> int:
    unknown = _unknown_id(encoder)
    return sum(id_ == unknown for ids in tokens.values() for id_ in ids)


def _unknown_id(encoder: TextEncoder) -> int | None:
    return encoder.unknown_id if isinstance(encoder, HasUnknownToken) else None


def _first(tokens: TokensOf) -> str:
    return next(iter(tokens))[:60]
