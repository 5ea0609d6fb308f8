// Steps of cells with packed weights. native_stream.py fills the structures.
//
// Shapes: B batch, C input channels, H hidden units, K width of a backbone layer, N heads. A map of n numbers
// to m columns is packed by groups of N · 16 columns: [groups, n + 1, N, 16], the bias first, zeros where
// columns end. A group of heads has 16 units of each head.

#pragma once

#include <cstdint>

constexpr int GROUP = 16;

struct StreamCell {
  int64_t C, H, L, K;
  int64_t mode;        // 0 default, 1 no_gate, 2 pure
  int64_t activation;  // of the L backbone layers: activation.h
  const float* const* backbone;  // maps, N = 4
  const float* heads;            // map of ff1, ff2, time_b and time_a; or of ff1
  const float *a, *rate;         // [H], mode pure only
  float* state;                  // [B, H]
};

struct CfCStream {
  int64_t B, cells;
  int64_t outputs, projected;  // numbers of the last cell that are the output; what they become, or 0
  const StreamCell* cell;      // each reads the new state of the one before
  const float* projection;     // map, N = 4
  float* scratch;              // as many as two of the widest [input, state] or backbone layer, up to 64s
};

// For each group of neurons its rows of synapses, one for each neuron of the group.
struct StreamSynapses {
  const int64_t* counts;   // rows of each group
  const int32_t* only;     // the source of a whole row, or -1
  const int32_t* sources;  // [rows, 16]
  const float* rows;       // [rows, 4, 16]: slope, slope · offset, conductance, current
};

struct LTCStream {
  int64_t B, C, H, M, unfolds;
  const float *cm, *leak;  // [P], [2, P]: conductance and current; P is H up to 16s
  StreamSynapses sensory, neural;
  const float *scale, *shift;  // [M]
  float* state;                // [B, H]
  float* scratch;              // [4, P]
};

extern "C" {
// x [B, C], spans [B] or null, out [B, ·].
void cfc_stream(const CfCStream* stream, const float* x, const float* spans, float span, float* out);
void ltc_stream(const LTCStream* stream, const float* x, const float* spans, float span, float* out);
}
