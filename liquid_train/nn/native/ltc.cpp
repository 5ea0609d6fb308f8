// Each vector holds W samples of one quantity; a block is V vectors, so that what belongs to a synapse is
// loaded once for all of them. Blocks are independent: threads share them out.

#include "ltc.h"

#include <algorithm>
#include <memory>
#include <mutex>
#include <vector>

#include "threads.h"
#include "vector.h"

namespace {

constexpr float LOG2E = 1.44269504f;

struct Synapse {
  int64_t source, index;  // index: in [S, H]
  float w, erev, sigma;
  float slope, offset;    // the logistic function is 1 / (1 + 2^(slope · v + offset))
};

// Synapses that are present, by target: those of neuron i are [begin[i], begin[i + 1]).
struct Synapses {
  std::vector<Synapse> all;
  std::vector<int64_t> begin;

  Synapses(const Parameters& p, int64_t sources, int64_t H) {
    for (int64_t i = 0; i < H; i++) {
      begin.push_back(all.size());
      for (int64_t j = 0; j < sources; j++) {
        int64_t at = j * H + i;
        if (p.mask[at] != 0.0f)
          all.push_back({j, at, p.w[at] * p.mask[at], p.erev[at], p.sigma[at], -LOG2E * p.sigma[at],
                         LOG2E * p.sigma[at] * p.mu[at]});
      }
    }
    begin.push_back(all.size());
  }
};

template <int V>
struct Block {
  vec v[V];

  vec& operator[](int i) { return v[i]; }
  const vec& operator[](int i) const { return v[i]; }
};

// What the synapses of one kind add up to in the gradients, for each synapse, as vectors over samples.
struct SynapseGradients {
  vec by_g, by_current, by_slope, by_offset;
};

template <int V>
class Worker {
 public:
  Worker(const LTC& c, const Synapses& sensory, const Synapses& neural, bool backward)
      : c(c), sensory(sensory), neural(neural), x(c.C), v((c.unfolds + 1) * c.H), g_in(c.H), current_in(c.H) {
    if (!backward) return;
    g.resize(c.unfolds * c.H);
    current.resize(c.unfolds * c.H);
    opened.resize(c.unfolds * neural.all.size());
    opened_in.resize(sensory.all.size());
    dv.resize(c.H);
    d_old.resize(c.H);
    dg_in.resize(c.H);
    d_current_in.resize(c.H);
    d_x.resize(c.C);
    d_neural.resize(neural.all.size());
    d_sensory.resize(sensory.all.size());
    d_cell.resize(c.H);
  }

  void forward(int64_t first, int64_t count) {
    read(c.states + first * c.H, c.H, count, v.data());
    for (int64_t t = 0; t < c.T; t++) {
      sense(t, first, count, nullptr);
      for (int64_t part = 0; part < c.unfolds; part++) solve<false>(v.data(), v.data() + c.H, 0), swap();
      write(v.data(), c.H, count, c.states + ((t + 1) * c.B + first) * c.H);
    }
  }

  void backward(int64_t first, int64_t count) {
    std::fill(dv.begin(), dv.end(), Block<V>{});
    for (int64_t t = c.T - 1; t >= 0; t--) {
      read(c.states + (t * c.B + first) * c.H, c.H, count, v.data());
      sense(t, first, count, opened_in.data());
      for (int64_t part = 0; part < c.unfolds; part++)
        solve<true>(&v[part * c.H], &v[(part + 1) * c.H], part);
      add(c.grads + (t * c.B + first) * c.H, c.H, count, dv.data());
      std::fill(dg_in.begin(), dg_in.end(), Block<V>{});
      std::fill(d_current_in.begin(), d_current_in.end(), Block<V>{});
      d_span = {};
      for (int64_t part = c.unfolds - 1; part >= 0; part--) unsolve(part);
      unsense();
      write(d_x.data(), c.C, count, c.d_x + (t * c.B + first) * c.C);
      if (c.d_spans) write(&d_span, 1, count, c.d_spans + t * c.B + first);
    }
    write(dv.data(), c.H, count, c.d_initial + first * c.H);
  }

  // Add what this worker summed to the result.
  void collect() const {
    collect(c.neural, neural, d_neural);
    collect(c.sensory, sensory, d_sensory);
    for (int64_t i = 0; i < c.H; i++) {
      c.d_cm[i] += sum(d_cell[i].by_g);
      c.d_gleak[i] += sum(d_cell[i].by_current);
      c.d_vleak[i] += sum(d_cell[i].by_slope);
    }
  }

 private:
  // Samples are rows of memory and lanes of a block; lanes beyond count are zero.
  static void read(const float* from, int64_t columns, int64_t count, Block<V>* to) {
    for (int64_t k = 0; k < columns; k++) to[k] = {};
    for (int64_t row = 0; row < count; row++)
      for (int64_t k = 0; k < columns; k++) lanes(to + k)[row] = from[row * columns + k];
  }

  static void add(const float* from, int64_t columns, int64_t count, Block<V>* to) {
    for (int64_t row = 0; row < count; row++)
      for (int64_t k = 0; k < columns; k++) lanes(to + k)[row] += from[row * columns + k];
  }

  static void write(const Block<V>* from, int64_t columns, int64_t count, float* to) {
    for (int64_t row = 0; row < count; row++)
      for (int64_t k = 0; k < columns; k++) to[row * columns + k] = lanes(from + k)[row];
  }

  static float* lanes(Block<V>* block) { return reinterpret_cast<float*>(block); }
  static const float* lanes(const Block<V>* block) { return reinterpret_cast<const float*>(block); }

  void swap() { std::copy_n(v.begin() + c.H, c.H, v.begin()); }

  // Sum conductances and currents of a neuron's synapses; keep how far each is open.
  template <bool KEEP>
  INLINE void gather(const Synapses& synapses, int64_t i, const Block<V>* from, Block<V>* kept, Block<V>& g,
                     Block<V>& current) const {
    for (int64_t s = synapses.begin[i]; s < synapses.begin[i + 1]; s++) {
      const Synapse& synapse = synapses.all[s];
      const Block<V>& source = from[synapse.source];
      float driven = synapse.w * synapse.erev;
#pragma GCC unroll 4
      for (int k = 0; k < V; k++) {
        vec open = inverse(1.0f + power_of_two(source[k] * synapse.slope + synapse.offset));
        if constexpr (KEEP) kept[s][k] = open;
        g[k] += open * synapse.w;
        current[k] += open * driven;
      }
    }
  }

  // What inputs add to conductances and currents, the leak included.
  void sense(int64_t t, int64_t first, int64_t count, Block<V>* kept) {
    read(c.x + (t * c.B + first) * c.C, c.C, count, x.data());
    for (int k = 0; k < V; k++) d[k] = splat(c.spans ? 1.0f : c.span);
    for (int64_t row = 0; c.spans && row < count; row++) lanes(&d)[row] = c.spans[t * c.B + first + row];
    for (int64_t i = 0; i < c.H; i++) {
      for (int k = 0; k < V; k++) {
        g_in[i][k] = splat(c.gleak[i] + c.epsilon);
        current_in[i][k] = splat(c.gleak[i] * c.vleak[i]);
      }
      kept ? gather<true>(sensory, i, x.data(), kept, g_in[i], current_in[i])
           : gather<false>(sensory, i, x.data(), nullptr, g_in[i], current_in[i]);
    }
  }

  // One part of the solver, from old to new potentials.
  template <bool KEEP>
  void solve(const Block<V>* old, Block<V>* to, int64_t part) {
    Block<V>* kept = KEEP ? opened.data() + part * neural.all.size() : nullptr;
    for (int64_t i = 0; i < c.H; i++) {
      Block<V> conductance = g_in[i], driven = current_in[i];
      gather<KEEP>(neural, i, old, kept, conductance, driven);
      for (int k = 0; k < V; k++)
        to[i][k] = (c.cm[i] * old[i][k] + d[k] * driven[k]) / (c.cm[i] + d[k] * conductance[k]);
      if constexpr (KEEP) {
        g[part * c.H + i] = conductance;
        current[part * c.H + i] = driven;
      }
    }
  }

  // The gradients of a part: dv is that of the new potentials, then that of the old.
  void unsolve(int64_t part) {
    const Block<V>*old = &v[part * c.H], *now = old + c.H, *kept = opened.data() + part * neural.all.size();
    std::fill(d_old.begin(), d_old.end(), Block<V>{});
    for (int64_t i = 0; i < c.H; i++) {
      Block<V> dg, d_current;
      const Block<V>&conductance = g[part * c.H + i], &driven = current[part * c.H + i];
      SynapseGradients& cell = d_cell[i];
      for (int k = 0; k < V; k++) {
        vec above = dv[i][k] / (c.cm[i] + d[k] * conductance[k]), below = -above * now[i][k];
        d_old[i][k] += above * c.cm[i];
        d_span[k] += below * conductance[k] + above * driven[k];
        cell.by_g += above * old[i][k] + below;
        dg[k] = below * d[k];
        d_current[k] = above * d[k];
        dg_in[i][k] += dg[k];
        d_current_in[i][k] += d_current[k];
      }
      scatter(neural, i, old, kept, dg, d_current, d_old.data(), d_neural.data());
    }
    dv.swap(d_old);
  }

  void unsense() {
    std::fill(d_x.begin(), d_x.end(), Block<V>{});
    for (int64_t i = 0; i < c.H; i++) {
      for (int k = 0; k < V; k++) {
        d_cell[i].by_current += dg_in[i][k] + d_current_in[i][k] * c.vleak[i];
        d_cell[i].by_slope += d_current_in[i][k] * c.gleak[i];
      }
      const Block<V>&dg = dg_in[i], &d_current = d_current_in[i];
      scatter(sensory, i, x.data(), opened_in.data(), dg, d_current, d_x.data(), d_sensory.data());
    }
  }

  // From the gradients of a neuron's conductance and current to those of its synapses and their sources.
  INLINE void scatter(const Synapses& synapses, int64_t i, const Block<V>* from, const Block<V>* kept,
                      const Block<V>& dg, const Block<V>& d_current, Block<V>* d_from,
                      SynapseGradients* total) {
    for (int64_t s = synapses.begin[i]; s < synapses.begin[i + 1]; s++) {
      const Synapse& synapse = synapses.all[s];
      const Block<V>& source = from[synapse.source];
      Block<V>& d_source = d_from[synapse.source];
      SynapseGradients sums = total[s];
#pragma GCC unroll 4
      for (int k = 0; k < V; k++) {
        vec open = kept[s][k], by_open = synapse.w * (dg[k] + synapse.erev * d_current[k]);
        vec inner = by_open * (open - open * open);
        sums.by_g += open * dg[k];
        sums.by_current += open * d_current[k];
        sums.by_slope += inner * source[k];
        sums.by_offset += inner;
        d_source[k] += inner * synapse.sigma;
      }
      total[s] = sums;
    }
  }

  static void collect(const Parameters& p, const Synapses& synapses,
                      const std::vector<SynapseGradients>& sums) {
    for (size_t s = 0; s < sums.size(); s++) {
      const Synapse& synapse = synapses.all[s];
      int64_t at = synapse.index;
      float by_g = sum(sums[s].by_g), by_current = sum(sums[s].by_current);
      float by_offset = sum(sums[s].by_offset);
      p.d_w[at] += p.mask[at] * (by_g + synapse.erev * by_current);
      p.d_erev[at] += synapse.w * by_current;
      p.d_sigma[at] += sum(sums[s].by_slope) - p.mu[at] * by_offset;
      p.d_mu[at] -= synapse.sigma * by_offset;
    }
  }

  const LTC& c;
  const Synapses &sensory, &neural;
  std::vector<Block<V>> x, v, g_in, current_in, g, current, opened, opened_in;
  std::vector<Block<V>> dv, d_old, dg_in, d_current_in, d_x;
  std::vector<SynapseGradients> d_neural, d_sensory, d_cell;  // d_cell: of cm, gleak and vleak
  Block<V> d, d_span;
};

template <int V>
void run(const LTC& c, bool backward) {
  Synapses sensory(c.sensory, c.C, c.H), neural(c.neural, c.H, c.H);
  std::mutex mutex;
  share((c.B + W - 1) / W, c.threads, [&](int64_t, int64_t begin, int64_t end) {
    Worker<V> worker(c, sensory, neural, backward);
    int64_t last = std::min(end * W, c.B);
    for (int64_t first = begin * W; first < last; first += V * W) {
      int64_t count = std::min<int64_t>(V * W, last - first);
      backward ? worker.backward(first, count) : worker.forward(first, count);
    }
    std::lock_guard<std::mutex> lock(mutex);
    if (backward) worker.collect();
  });
}

// Two vectors: with four, what a step keeps of every synapse is too much for the cache.
void run(const LTC& c, bool backward) {
  int64_t each = ((c.B + W - 1) / W + c.threads - 1) / c.threads;
  each >= 2 ? run<2>(c, backward) : run<1>(c, backward);
}

}  // namespace

void ltc_forward(const LTC* c) { run(*c, false); }

void ltc_backward(const LTC* c) { run(*c, true); }
