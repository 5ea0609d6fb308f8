// Products of a few rows with a packed matrix, in registers, with what follows done before they are stored.
//
// A matrix [K, columns] is packed as panels of N vectors side by side: [panel][K][N][W], zero beyond its end.

#pragma once

#include "memory.h"
#include "vector.h"

#include <type_traits>

// Rows in one tile: accumulators, a row of the panel and a broadcast fit the registers.
template <int N>
constexpr int tile_rows() {
  if (REGISTERS == 32) return N == 1 ? 16 : N < 4 ? 8 : 6;
  return N < 4 ? 12 / N : 2;
}

inline int64_t vectors(int64_t columns) { return (columns + W - 1) / W; }

struct Panels {
  Floats data;
  int64_t rows = 0;
  int64_t width = 0;

  const float* at(int64_t panel) const { return data.data() + panel * rows * width; }
};

// Pack count panels of N vectors to out. start(panel, vector, lane) is where a column's elements begin, null
// beyond the end; they are step apart.
template <int N, class Start>
void pack_to(float* to, int64_t rows, int64_t count, int64_t step, Start start) {
  for (int64_t panel = 0; panel < count; panel++)
    for (int j = 0; j < N; j++) {
      float* out = to + panel * rows * N * W + j * W;
      const float* columns[W];
      for (int lane = 0; lane < W; lane++) columns[lane] = start(panel, j, lane);
      bool whole = true;
      for (int lane = 0; lane < W; lane++) whole = whole && columns[lane];
      for (int64_t k = 0; k < rows; k++, out += N * W)
        if (whole)
          for (int lane = 0; lane < W; lane++) out[lane] = columns[lane][k * step];
        else
          for (int lane = 0; lane < W; lane++) out[lane] = columns[lane] ? columns[lane][k * step] : 0.0f;
    }
}

template <int N, class Start>
Panels pack(int64_t rows, int64_t count, int64_t step, Start start) {
  Panels panels{Floats(rows * count * N * W), rows, N * W};
  pack_to<N>(panels.data.data(), rows, count, step, start);
  return panels;
}

// Call body(N, vector), N a constant, for panels of two or, with more registers, three vectors side by side.
template <class Body>
INLINE void panels(int64_t vectors, Body body) {
  int64_t i = 0;
  if constexpr (REGISTERS == 32)
    for (; vectors - i == 3 || vectors - i > 4; i += 3) body(std::integral_constant<int, 3>{}, i);
  for (; vectors - i > 1; i += 2) body(std::integral_constant<int, 2>{}, i);
  if (i < vectors) body(std::integral_constant<int, 1>{}, i);
}

// Pack vectors of columns as panels(count) has them. start(vector, lane).
template <class Start>
Panels pack_columns(int64_t rows, int64_t count, int64_t step, Start start) {
  Panels packed{Floats(rows * count * W), rows, W};
  panels(count, [&](auto side, int64_t first) {
    pack_to<decltype(side)::value>(packed.data.data() + first * rows * W, rows, 1, step,
                                   [&](int64_t, int j, int lane) { return start(first + j, lane); });
  });
  return packed;
}

// Call body(N, column, vector), N a constant, for the panels of pack_columns.
template <class Body>
INLINE void across(int64_t columns, Body body) {
  panels(vectors(columns), [&](auto side, int64_t vector) INLINE_LAMBDA { body(side, vector * W, vector); });
}

// acc += a[:, :rows] times the panel; rows of a are stride apart.
template <int M, int N>
INLINE void accumulate(vec (&acc)[M][N], const float* a, int64_t stride, int64_t rows, const float* panel) {
  int64_t k = 0;
  if constexpr (M == 1) {
    // A lone row would wait for each sum: four take turns.
    vec parts[4][N] = {};
    for (; k + 4 <= rows; k += 4, panel += 4 * N * W)
#pragma GCC unroll 4
      for (int i = 0; i < 4; i++)
#pragma GCC unroll 8
        for (int j = 0; j < N; j++) parts[i][j] += splat(a[k + i]) * load(panel + (i * N + j) * W);
    for (int j = 0; j < N; j++) acc[0][j] += (parts[0][j] + parts[1][j]) + (parts[2][j] + parts[3][j]);
  }
  for (; k < rows; k++, panel += N * W) {
    vec b[N];
#pragma GCC unroll 8
    for (int j = 0; j < N; j++) hold(b[j] = load(panel + j * W));
#pragma GCC unroll 16
    for (int r = 0; r < M; r++) {
      vec s = splat(a[r * stride + k]);
#pragma GCC unroll 8
      for (int j = 0; j < N; j++) acc[r][j] += s * b[j];
    }
  }
}

// acc += the outer products of W · N columns of read with M columns of d, summed over rows.
template <int M, int N>
INLINE void accumulate_outer(vec (&acc)[M][N], const float* d, int64_t d_stride, const float* read,
                             int64_t read_stride, int64_t rows) {
  for (int64_t k = 0; k < rows; k++, d += d_stride, read += read_stride) {
    vec b[N];
#pragma GCC unroll 8
    for (int j = 0; j < N; j++) hold(b[j] = load(read + j * W));
#pragma GCC unroll 16
    for (int r = 0; r < M; r++) {
      vec s = splat(d[r]);
#pragma GCC unroll 8
      for (int j = 0; j < N; j++) acc[r][j] += s * b[j];
    }
  }
}

// Rows of the tiles for what is left after those of M rows.
template <int M>
constexpr int fewer_rows() {
  return M > 8 ? 8 : M > 4 ? 4 : M > 2 ? 2 : 1;
}

// Call body(M, row), M a constant, so that tiles of M rows cover them all.
template <int M, class Body>
INLINE void tiles(int64_t row, int64_t end, Body body) {
  for (; row + M <= end; row += M) body(std::integral_constant<int, M>{}, row);
  if constexpr (M > 1) {
    if (row < end) tiles<fewer_rows<M>()>(row, end, body);
  }
}
