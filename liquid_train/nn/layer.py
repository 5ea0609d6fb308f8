"""What CfC and LTC have in common: a layer that runs its cell over sequences.

Shapes: B batch, T steps, C input channels, H hidden units, O outputs. A layer with ``batch_first`` reads
``[B, T, ·]``, otherwise ``[T, B, ·]``; what is said below for ``[B, T, ·]`` holds for both.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from liquid_train.nn._checks import check_at_least, check_choice
from liquid_train.nn.arguments import Hidden, Lengths, Timespans, arrange, initial_state
from liquid_train.nn.cfc_cell import CfCCell
from liquid_train.nn.fast import run_fast, why_not
from liquid_train.nn.ltc_cell import LTCCell
from liquid_train.nn.memory_cell import MemoryCell
from liquid_train.nn.native.step import MOST_SAMPLES
from liquid_train.nn.sequences import Sequences
from liquid_train.nn.streaming import Stream, make_stream
from liquid_train.nn.unroll import unroll
from liquid_train.nn.wired_cfc_cell import WiredCfCCell

Cell = CfCCell | WiredCfCCell | LTCCell
Fast = bool | str


class LiquidLayer(nn.Module):
    """Run a cell over sequences, with an optional memory cell before it and an optional projection after it.

    Args:
        rnn_cell: The cell; the layer takes its sizes.
        proj_size: Width that a linear map brings the output to, or None to leave it.
        return_sequences: Whether to return the output of every step or only each sequence's last.
        batch_first: Whether sequences come as ``[B, T, C]`` or ``[T, B, C]``.
        mixed_memory: Whether to put a memory cell before the liquid cell.
        fast: Whether to run whole sequences at once: True, False for the plain loop over the steps, or
            ``"auto"`` for True where that can serve.

    Attributes:
        input_size: Input channels C.
        state_size: Hidden units H.
        output_size: Output channels O.
    """

    def __init__(
        self,
        rnn_cell: Cell,
        proj_size: int | None,
        return_sequences: bool,
        batch_first: bool,
        mixed_memory: bool,
        fast: Fast,
    ) -> None:
        super().__init__()
        if proj_size is not None:
            check_at_least("proj_size", proj_size, 1)
        check_choice("fast", fast, (True, False, "auto"))
        self.fast = fast
        for module in rnn_cell.modules():
            if isinstance(module, CfCCell | LTCCell):
                module.fast = fast is not False
        self.input_size = rnn_cell.sensory_size
        self.state_size = rnn_cell.state_size
        self.output_size = rnn_cell.output_size if proj_size is None else proj_size
        self.proj_size = proj_size
        self.return_sequences = return_sequences
        self.batch_first = batch_first
        self.use_mixed = mixed_memory
        # The names of the submodules are those in ncps' state dicts.
        self.rnn_cell = rnn_cell
        self.lstm = MemoryCell(self.input_size, self.state_size) if mixed_memory else None
        self.fc = nn.Identity() if proj_size is None else nn.Linear(rnn_cell.output_size, proj_size)

    def reset_parameters(self) -> None:
        """Draw all parameters anew and restore masks from the wiring, as after ``to_empty()``."""
        self.rnn_cell.reset_parameters()
        if self.lstm is not None:
            self.lstm.reset_parameters()
        if isinstance(self.fc, nn.Linear):
            self.fc.reset_parameters()

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Hidden | None = None,
        timespans: Timespans = None,
        lengths: Lengths = None,
    ) -> tuple[Tensor | PackedSequence, Hidden]:
        """Run over a batch of sequences, or over one.

        Args:
            input: ``[B, T, C]``; ``[T, C]`` for one sequence; or a ``PackedSequence`` of steps ``[C]``.
            hx: State before the first step, ``[B, H]``, or a pair of them with ``mixed_memory``; without B
                for one sequence. Zeros by default.
            timespans: Time that passes at each step, ``[B, T]`` or ``[B, T, 1]``; without B for one
                sequence; packed or padded for a packed input; or one number for every step. 1.0 by default.
            lengths: Steps of each sequence ``[B]``, between 0 and T; what follows them is padding, which is
                not read and may hold anything. All T by default. Not with a packed input.

        Returns:
            The output and the state at the end of each sequence, in the form of ``hx``. The output has the
            form of the input with O channels and zeros in the padding; without ``return_sequences`` it is
            that of each sequence's last step, ``[B, O]``. A sequence without steps keeps its state, and its
            last output is zero.

        Raises:
            ValueError: If a shape does not fit that of the input, or a length is not between 0 and T.
                Lengths on an accelerator are not checked for their range. Also if ``fast=True`` and the fast
                path cannot serve the call.
        """
        sequences = arrange(input, timespans, lengths, self.input_size, self.batch_first)
        state = initial_state(hx, sequences, self.state_size, self.use_mixed)
        outputs, state = self._run(sequences, state)
        output: Tensor | PackedSequence
        if self.return_sequences:
            output = sequences.restore(self.fc(outputs))
        else:
            output = sequences.restore_last(self.fc(sequences.last(outputs)))
        state = tuple(map(sequences.restore_state, state))
        return output, (state[0], state[1]) if self.use_mixed else state[0]

    def stream(self, batch_size: int = 1, *, reuse_output: bool = False) -> Stream:
        """Return an object that runs this layer step by step, at low latency and without autograd.

        It has a copy of the weights as they are now, and a state of its own that is zero at first.

        Args:
            batch_size: Samples that advance together.
            reuse_output: Whether each step overwrites the output of the one before.

        Raises:
            ValueError: If the weights are neither all float32 nor all float64.
        """
        return make_stream(self, batch_size, reuse_output)

    def _run(self, sequences: Sequences, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the outputs of all steps ``[B, T, O]`` and the state at each sequence's end."""
        steps = sequences.inputs.shape[sequences.time_dim]
        if steps == 0:
            return sequences.inputs.new_zeros(*sequences.inputs.shape[:2], self.rnn_cell.output_size), state
        # The cell's own step is quicker than what surrounds a sequence.
        streams = steps == 1 and sequences.batch_size <= MOST_SAMPLES and not torch.is_grad_enabled()
        if self.fast is True or (self.fast == "auto" and not streams):
            reason = why_not(self.rnn_cell, self.lstm, sequences.inputs, sequences.timespans, state)
            if reason is None:
                whole, end = run_fast(self.rnn_cell, sequences, state[0])
                return whole, (end,)
            if self.fast is True:
                raise ValueError(f"fast=True but {reason}: use fast='auto' or fast=False")
        outputs, state = unroll(self.rnn_cell, self.lstm, sequences, state)
        return torch.stack(outputs, sequences.time_dim), state
