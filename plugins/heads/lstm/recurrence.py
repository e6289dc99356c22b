"""An LSTM whose state is rows, and whose cells can begin with a long memory."""

import math

import torch
from torch import Tensor, nn

from core import State

# the two tensors of the state: the output, and the cells
STATE = ("h", "c")


class Recurrence(nn.LSTM):
    """torch's LSTM, with the state that core keeps: "h" and "c", each (B layers hidden_size).

    span: number of frames that it can remember when training begins; None: PyTorch's
        initialisation.
    """

    def __init__(
        self, width: int, hidden_size: int, layers: int, *, dropout: float, span: int | None
    ) -> None:
        super().__init__(width, hidden_size, layers, batch_first=True, dropout=dropout)
        if span is not None:
            self._set_span(span)

    def initial_state(self, rows: int) -> State:
        """Return the state before the first frame: zeros."""
        weight = next(self.parameters())
        shape = (rows, self.num_layers, self.hidden_size)
        return {name: weight.new_zeros(shape) for name in STATE}

    def run(self, features: Tensor, state: State | None) -> tuple[Tensor, State]:
        """(B T width) -> hidden states (B T hidden_size), and the state after the last frame.

        state: the state before the first frame; None: zeros.
        """
        device, dtype = features.device.type, next(self.parameters()).dtype
        # On a CPU the LSTM never runs in mixed precision, because not every CPU supports it.
        is_mixed = torch.is_autocast_enabled(device) and device != "cpu"
        before = None
        if state is not None:  # (layers B hidden_size), as torch has it
            before = tuple(state[name].to(dtype).transpose(0, 1).contiguous() for name in STATE)
        with torch.autocast(device, enabled=is_mixed):
            hidden, after = self(features if is_mixed else features.to(dtype), before)
        pairs = zip(STATE, after, strict=True)
        return hidden, {name: x.transpose(0, 1).to(dtype) for name, x in pairs}

    @torch.no_grad()
    def _set_span(self, span: int) -> None:
        """Let the cells forget over 2 to `span` frames, as many cells in each octave.

        A cell with the forget gate f keeps its contents for about 1 / (1 - f) frames, so the gate's
        bias is log(frames - 1). The input gate's bias is the opposite: a cell that keeps its
        contents for long adds little to them in each frame (Tallec and Ollivier 2018).
        """
        size = self.hidden_size
        for layer in self.all_weights:
            frames = torch.empty(size).uniform_(math.log(2), math.log(span)).exp()
            bias = (frames - 1).log()
            # the gates' order is: input, forget, cell, output; PyTorch adds up the two biases
            layer[2][: 2 * size] = torch.cat([-bias, bias])
            layer[3][: 2 * size] = 0
