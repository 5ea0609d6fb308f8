"""The two loops of ``CfCFunction``, each as one Triton kernel that runs through all steps.

A program takes a few samples through the whole sequence, so that programs never wait for each other. Within a
step one product's result is read by the next: it goes through memory, where the backward pass wants it anyway,
and a barrier. ``PRECISION`` is how ``tl.dot`` multiplies.

Shapes: T steps, B batch, H hidden units, N heads, K width of the backbone layer, F width of the first map: K,
or N·H without a backbone.
"""

import triton
import triton.language as tl

SIGMOID, RELU, SILU, GELU = range(4)
GATED, NO_GATE, PURE = range(3)

_SIGMOID = tl.constexpr(SIGMOID)
_RELU = tl.constexpr(RELU)
_SILU = tl.constexpr(SILU)
_GATED = tl.constexpr(GATED)
_PURE = tl.constexpr(PURE)


@triton.jit
def _product(
    acc, a, rows, row_ok, width, w, w_row, w_column, columns, column_ok,
    CHUNK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Return ``acc`` plus some rows of ``a`` ``[B, width]`` times some columns of ``w`` ``[width, ·]``."""
    for start in range(0, width, CHUNK):
        inner = start + tl.arange(0, CHUNK)
        inner_ok = inner < width
        left = tl.load(
            a + rows[:, None] * width + inner[None, :], mask=row_ok[:, None] & inner_ok[None, :], other=0.0
        )
        right = tl.load(
            w + inner[:, None] * w_row + columns[None, :] * w_column,
            mask=inner_ok[:, None] & column_ok[None, :],
            other=0.0,
        )
        acc = tl.dot(left, right, acc, input_precision=PRECISION)
    return acc


@triton.jit
def _activation(y, KIND: tl.constexpr):
    if KIND == _SIGMOID:
        return tl.sigmoid(y)
    if KIND == _RELU:
        return tl.maximum(y, 0.0)
    if KIND == _SILU:
        return y * tl.sigmoid(y)
    return 0.5 * y * (1.0 + tl.erf(y * 0.7071067811865476))


@triton.jit
def _head(
    index: tl.constexpr, source, width, w, x, bias, rows, row_ok, columns, column_ok, H,
    N: tl.constexpr, BACKBONE: tl.constexpr, CHUNK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Return one head for some samples and units, before its activation."""
    at = index * H + columns
    if BACKBONE:
        start = tl.load(bias + at, mask=column_ok, other=0.0)[None, :]
        acc = tl.zeros((rows.shape[0], columns.shape[0]), tl.float32) + start
    else:
        acc = tl.load(
            x + rows[:, None] * (N * H) + at[None, :], mask=row_ok[:, None] & column_ok[None, :], other=0.0
        )
    return _product(acc, source, rows, row_ok, width, w, 1, width, at, column_ok, CHUNK, PRECISION)


@triton.jit
def forward(
    x, states, recurrent, arguments, values, heads, w, bias, spans, a, w_tau, span, T, B, H, K,
    MODE: tl.constexpr, N: tl.constexpr, BACKBONE: tl.constexpr, ACTIVATION: tl.constexpr,
    KEEPS_ARGUMENT: tl.constexpr, KEEP: tl.constexpr, SPANS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    CHUNK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Fill states, heads and what the backbone gives.

    ``x`` ``[T, B, F]``, ``states`` ``[T + 1, B, H]``, ``recurrent`` ``[F, H]``, ``arguments`` and ``values``
    ``[T, B, K]``, ``heads`` ``[T, B, N · H]``, ``w`` ``[N · H, K]``, ``bias`` ``[N · H]``, ``spans`` ``[T, B]``, ``a``
    and ``w_tau`` ``[H]``. Heads, and either arguments or values, are of one step if they are not to be kept.
    """
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row_ok = rows < B
    for _ in range(T):
        if BACKBONE:
            for start in range(0, K, COLUMNS):
                columns = start + tl.arange(0, COLUMNS)
                column_ok = columns < K
                ok = row_ok[:, None] & column_ok[None, :]
                at = rows[:, None] * K + columns[None, :]
                y = tl.load(x + at, mask=ok, other=0.0)
                y = _product(
                    y, states, rows, row_ok, H, recurrent, 1, H, columns, column_ok, CHUNK, PRECISION
                )
                if KEEPS_ARGUMENT:
                    tl.store(arguments + at, y, mask=ok)
                tl.store(values + at, _activation(y, ACTIVATION), mask=ok)
            tl.debug_barrier()
            source, width, weight = values, K, w
        else:
            source, width, weight = states, H, recurrent
        if SPANS:
            t = tl.load(spans + rows, mask=row_ok, other=0.0)[:, None]
        else:
            t = span
        for start in range(0, H, COLUMNS):
            columns = start + tl.arange(0, COLUMNS)
            column_ok = columns < H
            ok = row_ok[:, None] & column_ok[None, :]
            u = heads + rows[:, None] * (N * H) + columns[None, :]
            p = _head(
                0, source, width, weight, x, bias, rows, row_ok, columns, column_ok, H,
                N, BACKBONE, CHUNK, PRECISION,
            )  # fmt: skip
            if MODE == _PURE:
                tl.store(u, p, mask=ok)
                full = tl.load(a + columns, mask=column_ok, other=0.0)[None, :]
                rate = tl.abs(tl.load(w_tau + columns, mask=column_ok, other=0.0))[None, :] + tl.abs(p)
                new = full - full * tl.exp(-t * rate) * p
            else:
                q = _head(
                    1, source, width, weight, x, bias, rows, row_ok, columns, column_ok, H,
                    N, BACKBONE, CHUNK, PRECISION,
                )  # fmt: skip
                s = _head(
                    2, source, width, weight, x, bias, rows, row_ok, columns, column_ok, H,
                    N, BACKBONE, CHUNK, PRECISION,
                )  # fmt: skip
                if SPANS:
                    b = _head(
                        3, source, width, weight, x, bias, rows, row_ok, columns, column_ok, H,
                        N, BACKBONE, CHUNK, PRECISION,
                    )  # fmt: skip
                    tl.store(u + 3 * H, b, mask=ok)
                    s += b * t
                p, q, s = tl.sigmoid(p), tl.sigmoid(q), tl.sigmoid(s)
                tl.store(u, p, mask=ok)
                tl.store(u + H, q, mask=ok)
                tl.store(u + 2 * H, s, mask=ok)
                if MODE == _GATED:
                    new = p + s * (q - p)
                else:
                    new = p + s * (q - 0.5)
            tl.store(states + B * H + rows[:, None] * H + columns[None, :], new, mask=ok)
        tl.debug_barrier()
        states += B * H
        spans += B
        if BACKBONE:
            x += B * K
        else:
            x += B * N * H
        if KEEP:
            heads += B * N * H
            arguments += B * K
            if not KEEPS_ARGUMENT:
                values += B * K


@triton.jit
def backward(
    totals, initial, heads, slopes, w, recurrent, T, B, H, K,
    N: tl.constexpr, BACKBONE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHUNK: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Turn slopes into gradients, from the last step to the first; pointers come at the last step.

    ``totals`` ``[T, B, H]`` are the gradients of the states, to which those that later steps bring are added;
    the first step's go to ``initial`` ``[B, H]``. ``heads`` ``[T, B, N · H]`` and ``slopes`` ``[T, B, K]`` hold
    slopes and then the gradients of the heads and of what the activation takes.
    """
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row_ok = rows < B
    for done in range(T):
        for start in range(0, H, COLUMNS):
            columns = start + tl.arange(0, COLUMNS)
            ok = row_ok[:, None] & (columns < H)[None, :]
            total = tl.load(totals + rows[:, None] * H + columns[None, :], mask=ok, other=0.0)
            for index in tl.static_range(N):
                d = heads + rows[:, None] * (N * H) + index * H + columns[None, :]
                tl.store(d, tl.load(d, mask=ok, other=0.0) * total, mask=ok)
        tl.debug_barrier()
        if BACKBONE:
            for start in range(0, K, COLUMNS):
                columns = start + tl.arange(0, COLUMNS)
                column_ok = columns < K
                ok = row_ok[:, None] & column_ok[None, :]
                d = tl.zeros((ROWS, COLUMNS), tl.float32)
                d = _product(d, heads, rows, row_ok, N * H, w, K, 1, columns, column_ok, CHUNK, PRECISION)
                slope = slopes + rows[:, None] * K + columns[None, :]
                tl.store(slope, tl.load(slope, mask=ok, other=0.0) * d, mask=ok)
            tl.debug_barrier()
            source, width = slopes, K
        else:
            source, width = heads, N * H
        if done + 1 < T:
            target = totals - B * H
        else:
            target = initial
        for start in range(0, H, COLUMNS):
            columns = start + tl.arange(0, COLUMNS)
            column_ok = columns < H
            ok = row_ok[:, None] & column_ok[None, :]
            to = target + rows[:, None] * H + columns[None, :]
            d = tl.load(to, mask=ok, other=0.0)
            d = _product(
                d, source, rows, row_ok, width, recurrent, H, 1, columns, column_ok, CHUNK, PRECISION
            )
            tl.store(to, d, mask=ok)
        tl.debug_barrier()
        totals -= B * H
        heads -= B * N * H
        slopes -= B * K
