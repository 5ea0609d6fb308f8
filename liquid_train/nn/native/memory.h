// Vectors of floats whose memory is kept for the next call: asking the system for it anew would take as long as
// a short call itself.

#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>
#include <vector>

// A thread's memory that is free.
class Spare {
 public:
  struct Block {
    void* data;
    size_t size;
  };

  ~Spare() {
    for (Block& block : blocks) std::free(block.data);
  }

  void* take(size_t size) {
    for (size_t i = 0; i < blocks.size(); i++)
      if (blocks[i].size == size) {
        void* data = blocks[i].data;
        blocks.erase(blocks.begin() + i);
        total -= size;
        return data;
      }
    void* data = std::aligned_alloc(64, size);
    if (!data) throw std::bad_alloc();
    return data;
  }

  // The oldest goes where it gets too much: layers of other sizes would pile up.
  void give(void* data, size_t size) {
    for (total += size; total > MOST && !blocks.empty(); blocks.erase(blocks.begin())) {
      std::free(blocks.front().data);
      total -= blocks.front().size;
    }
    blocks.push_back({data, size});
  }

 private:
  static constexpr size_t MOST = 32 << 20;  // bytes, and one block of any size

  std::vector<Block> blocks;
  size_t total = 0;
};

template <class T>
struct Reused {
  using value_type = T;

  Reused() = default;
  template <class Other>
  Reused(const Reused<Other>&) {}

  // Elements that are given no value are not set.
  template <class Other>
  void construct(Other*) {}
  template <class Other, class... Values>
  void construct(Other* at, const Values&... values) {
    ::new (static_cast<void*>(at)) Other(values...);
  }

  static Spare& spare() {
    thread_local Spare spare;
    return spare;
  }

  static size_t bytes(size_t count) { return (count * sizeof(T) + 63) / 64 * 64; }

  T* allocate(size_t count) { return static_cast<T*>(spare().take(bytes(count))); }
  void deallocate(T* data, size_t count) { spare().give(data, bytes(count)); }

  bool operator==(const Reused&) const { return true; }
  bool operator!=(const Reused&) const { return false; }
};

using Floats = std::vector<float, Reused<float>>;
