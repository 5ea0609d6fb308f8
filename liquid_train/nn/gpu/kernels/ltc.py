"""The two loops of ``LTCFunction``, each as one Triton kernel that runs through all steps.

A program takes a few samples through the whole sequence, so that programs never wait for each other. Potentials
go from one solver part to the next through memory and a barrier. Gradients of parameters are summed by program.

Shapes: T steps, B batch, H neurons, U solver parts of a step, P programs.
"""

import triton
import triton.language as tl


@triton.jit
def _opened(v, slope, offset, rows, row_ok, sources, source_ok, columns, column_ok, H):
    """Return how far the synapses of some sources and targets are open, the potentials and the slopes."""
    potentials = tl.load(
        v + rows[:, None] * H + sources[None, :], mask=row_ok[:, None] & source_ok[None, :], other=0.0
    )
    at = sources[:, None] * H + columns[None, :]
    ok = source_ok[:, None] & column_ok[None, :]
    slopes = tl.load(slope + at, mask=ok, other=0.0)
    offsets = tl.load(offset + at, mask=ok, other=0.0)
    return tl.sigmoid(potentials[:, :, None] * slopes[None] - offsets[None]), potentials, slopes


@triton.jit
def _part(
    v, new, denominators, sums, base, t, cm, w, slope, offset, rows, row_ok, H,
    KEEP: tl.constexpr, ROWS: tl.constexpr, SOURCES: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Solve one part: potentials ``v`` to ``new``."""
    for start in range(0, H, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        column_ok = columns < H
        conductance = tl.zeros((ROWS, COLUMNS), tl.float32)
        current = tl.zeros((ROWS, COLUMNS), tl.float32)
        for first in range(0, H, SOURCES):
            sources = first + tl.arange(0, SOURCES)
            source_ok = sources < H
            opened, _, _ = _opened(v, slope, offset, rows, row_ok, sources, source_ok, columns, column_ok, H)
            at = sources[:, None] * H + columns[None, :]
            ok = source_ok[:, None] & column_ok[None, :]
            conductance += tl.sum(opened * tl.load(w + at, mask=ok, other=0.0)[None], 1)
            current += tl.sum(opened * tl.load(w + H * H + at, mask=ok, other=0.0)[None], 1)
        ok = row_ok[:, None] & column_ok[None, :]
        at = rows[:, None] * H + columns[None, :]
        wide = rows[:, None] * (2 * H) + columns[None, :]
        denominator = tl.load(base + wide, mask=ok, other=1.0) + conductance * t
        numerator = tl.load(base + wide + H, mask=ok, other=0.0) + current * t
        capacitance = tl.load(cm + columns, mask=column_ok, other=0.0)[None, :]
        numerator += capacitance * tl.load(v + at, mask=ok, other=0.0)
        tl.store(new + at, numerator / denominator, mask=ok)
        if KEEP:
            tl.store(denominators + at, denominator, mask=ok)
            tl.store(sums + wide, conductance, mask=ok)
            tl.store(sums + wide + H, current, mask=ok)


@triton.jit
def _copy(source, to, rows, row_ok, H, COLUMNS: tl.constexpr):
    for start in range(0, H, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        ok = row_ok[:, None] & (columns < H)[None, :]
        at = rows[:, None] * H + columns[None, :]
        tl.store(to + at, tl.load(source + at, mask=ok), mask=ok)


@triton.jit
def forward(
    base, states, between, spans, cm, w, slope, offset, T, B, H,
    UNFOLDS: tl.constexpr, SPANS: tl.constexpr, ROWS: tl.constexpr, SOURCES: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    """Fill states.

    ``base`` ``[T, B, 2H]``, ``states`` ``[T + 1, B, H]``, ``between`` ``[U + 1, B, H]``, ``spans`` ``[T, B]``,
    ``cm`` ``[H]``, ``w`` ``[2, H, H]``, ``slope`` and ``offset`` ``[H, H]``.
    """
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row_ok = rows < B
    _copy(states, between, rows, row_ok, H, COLUMNS)
    tl.debug_barrier()
    for _ in range(T):
        if SPANS:
            t = tl.load(spans + rows, mask=row_ok, other=0.0)[:, None]
        else:
            t = 1.0
        for part in range(UNFOLDS):
            v = between + part * B * H
            _part(
                v, v + B * H, v, v, base, t, cm, w, slope, offset, rows, row_ok, H, False, ROWS, SOURCES, COLUMNS
            )  # fmt: skip
            tl.debug_barrier()
        states += B * H
        _copy(between + UNFOLDS * B * H, states, rows, row_ok, H, COLUMNS)
        _copy(between + UNFOLDS * B * H, between, rows, row_ok, H, COLUMNS)
        tl.debug_barrier()
        base += 2 * B * H
        spans += B


@triton.jit
def _add(to, value, mask):
    tl.store(to, tl.load(to, mask=mask, other=0.0) + value, mask=mask)


@triton.jit
def _down(
    d_v, d, v, t, cm, w, slope, offset, d_w, d_slope, d_offset, rows, row_ok, H,
    ROWS: tl.constexpr, SOURCES: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """From the gradients ``d`` ``[B, 2H]`` of a part's sums to those of its potentials and synapses."""
    for first in range(0, H, SOURCES):
        sources = first + tl.arange(0, SOURCES)
        source_ok = sources < H
        ok = row_ok[:, None] & source_ok[None, :]
        capacitance = tl.load(cm + sources, mask=source_ok, other=0.0)[None, :]
        own = tl.load(d + rows[:, None] * (2 * H) + H + sources[None, :], mask=ok, other=0.0)
        through = own * capacitance
        for start in range(0, H, COLUMNS):
            columns = start + tl.arange(0, COLUMNS)
            column_ok = columns < H
            opened, potentials, slopes = _opened(
                v, slope, offset, rows, row_ok, sources, source_ok, columns, column_ok, H
            )
            wide = rows[:, None] * (2 * H) + columns[None, :]
            wide_ok = row_ok[:, None] & column_ok[None, :]
            d_g = (tl.load(d + wide, mask=wide_ok, other=0.0) * t)[:, None, :]
            d_current = (tl.load(d + wide + H, mask=wide_ok, other=0.0) * t)[:, None, :]
            at = sources[:, None] * H + columns[None, :]
            at_ok = source_ok[:, None] & column_ok[None, :]
            g = tl.load(w + at, mask=at_ok, other=0.0)[None]
            current = tl.load(w + H * H + at, mask=at_ok, other=0.0)[None]
            inner = (g * d_g + current * d_current) * (opened * (1.0 - opened))
            through += tl.sum(inner * slopes[None], 2)
            _add(d_w + at, tl.sum(opened * d_g, 0), at_ok)
            _add(d_w + H * H + at, tl.sum(opened * d_current, 0), at_ok)
            _add(d_slope + at, tl.sum(inner * potentials[:, :, None], 0), at_ok)
            _add(d_offset + at, -tl.sum(inner, 0), at_ok)
        tl.store(d_v + rows[:, None] * H + sources[None, :], through, mask=ok)


@triton.jit
def backward(
    grads, base, states, between, denominators, sums, spans, cm, w, slope, offset,
    d, d_base, d_v, d_spans, d_cm, d_w, d_slope, d_offset, T, B, H, before,
    UNFOLDS: tl.constexpr, SPANS: tl.constexpr, ROWS: tl.constexpr, SOURCES: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    """Run the steps backwards, each forwards first; pointers of sequences come at the last step.

    ``grads`` ``[T, B, H]``; ``denominators`` ``[U, B, H]``, ``sums`` ``[U, B, 2H]`` and ``d`` ``[B, 2H]`` are room to
    work in. Results: ``d_base``, ``d_spans``, ``d_v`` ``[B, H]``, and by program ``d_cm`` ``[P, H]``, ``d_w``
    ``[P, 2, H, H]``, ``d_slope`` and ``d_offset`` ``[P, H, H]``, to which is added. ``before`` is how many programs
    earlier launches had.
    """
    program = tl.program_id(0)
    rows = (before + program) * ROWS + tl.arange(0, ROWS)
    row_ok = rows < B
    d_cm += program * H
    d_w += program * 2 * H * H
    d_slope += program * H * H
    d_offset += program * H * H
    for _ in range(T):
        if SPANS:
            t = tl.load(spans + rows, mask=row_ok, other=0.0)[:, None]
        else:
            t = 1.0
        _copy(states, between, rows, row_ok, H, COLUMNS)
        tl.debug_barrier()
        for part in range(UNFOLDS):
            v = between + part * B * H
            kept = denominators + part * B * H
            kept_sums = sums + part * 2 * B * H
            _part(
                v, v + B * H, kept, kept_sums, base, t, cm, w, slope, offset, rows, row_ok, H, True, ROWS, SOURCES,
                COLUMNS,
            )  # fmt: skip
            tl.debug_barrier()
        d_span = tl.zeros((ROWS,), tl.float32)
        for done in range(UNFOLDS):
            part = UNFOLDS - 1 - done
            v = between + part * B * H
            for start in range(0, H, COLUMNS):
                columns = start + tl.arange(0, COLUMNS)
                column_ok = columns < H
                ok = row_ok[:, None] & column_ok[None, :]
                at = rows[:, None] * H + columns[None, :]
                wide = rows[:, None] * (2 * H) + columns[None, :]
                total = tl.load(d_v + at, mask=ok, other=0.0)
                if done == 0:
                    total += tl.load(grads + at, mask=ok, other=0.0)
                d_numerator = total / tl.load(denominators + part * B * H + at, mask=ok, other=1.0)
                d_denominator = -d_numerator * tl.load(v + B * H + at, mask=ok, other=0.0)
                tl.store(d + wide, d_denominator, mask=ok)
                tl.store(d + wide + H, d_numerator, mask=ok)
                _add(d_base + wide, d_denominator, ok)
                _add(d_base + wide + H, d_numerator, ok)
                _add(d_cm + columns, tl.sum(d_numerator * tl.load(v + at, mask=ok, other=0.0), 0), column_ok)
                if SPANS:
                    summed = sums + part * 2 * B * H + wide
                    d_span += tl.sum(tl.load(summed, mask=ok, other=0.0) * d_denominator, 1)
                    d_span += tl.sum(tl.load(summed + H, mask=ok, other=0.0) * d_numerator, 1)
            tl.debug_barrier()
            _down(
                d_v, d, v, t, cm, w, slope, offset, d_w, d_slope, d_offset, rows, row_ok, H, ROWS, SOURCES, COLUMNS
            )  # fmt: skip
            tl.debug_barrier()
        if SPANS:
            tl.store(d_spans + rows, d_span, mask=row_ok)
            d_spans -= B
            spans -= B
        grads -= B * H
        base -= 2 * B * H
        d_base -= 2 * B * H
        states -= B * H
