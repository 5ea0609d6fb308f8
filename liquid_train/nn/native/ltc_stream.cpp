// One step of an LTC from the synapses that are there; vectors hold neurons.

#include <algorithm>

#include "stream.h"
#include "vector.h"

namespace {

INLINE vec pick(const float* v, const int32_t* sources) {
#if defined(__AVX512F__)
  return (vec)_mm512_i32gather_ps(_mm512_loadu_si512(sources), v, 4);
#else
  vec out;
  for (int i = 0; i < W; i++) out[i] = v[sources[i]];
  return out;
#endif
}

// Write to out [2, P] what is given there [2, P], plus what sources at potentials v let through.
INLINE void gather(const StreamSynapses& s, int64_t P, const float* v, const float* given, float* out) {
  const int32_t *only = s.only, *sources = s.sources;
  const float* rows = s.rows;
  for (int64_t group = 0; group < P / GROUP; group++) {
    int64_t count = s.counts[group];
    for (int64_t i = 0; i < GROUP; i += W) {
      int64_t at = group * GROUP + i;
      vec g = load(given + at), current = load(given + P + at);
      for (int64_t r = 0; r < count; r++) {
        const float* row = rows + r * 4 * GROUP + i;
        vec from = only[r] >= 0 ? splat(v[only[r]]) : pick(v, sources + r * GROUP + i);
        vec opened = logistic(load(row) * from - load(row + GROUP));
        g += opened * load(row + 2 * GROUP);
        current += opened * load(row + 3 * GROUP);
      }
      store(out + at, g);
      store(out + P + at, current);
    }
    only += count, sources += count * GROUP, rows += count * 4 * GROUP;
  }
}

}  // namespace

void ltc_stream(const LTCStream* stream, const float* x, const float* spans, float span, float* out) {
  const LTCStream& s = *stream;
  int64_t P = (s.H + GROUP - 1) / GROUP * GROUP;
  float *given = s.scratch, *total = given + 2 * P;
  for (int64_t row = 0; row < s.B; row++) {
    vec d = splat((spans ? spans[row] : span) / float(s.unfolds));
    float* v = s.state + row * s.H;
    gather(s.sensory, P, x + row * s.C, s.leak, given);
    for (int64_t part = 0; part < s.unfolds; part++) {
      gather(s.neural, P, v, given, total);
      for (int64_t i = 0; i < s.H; i += W) {
        int64_t left = s.H - i;
        vec cm = load(s.cm + i), charge = cm * load(v + i, left) + d * load(total + P + i);
        store(v + i, charge / (cm + d * load(total + i)), left);
      }
    }
    for (int64_t k = 0; k < s.M; k++) out[row * s.M + k] = v[k] * s.scale[k] + s.shift[k];
  }
}
