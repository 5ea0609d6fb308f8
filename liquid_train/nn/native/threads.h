// Threads that share out the rows of a batch: those of PyTorch's OpenMP, or a pool of our own, made on first use
// and anew in a forked child.

#pragma once

#include <cstdint>
#include <functional>

// Call work(slice, first, last) for contiguous slices of rows, at most one per thread, and wait for all.
void share(int64_t rows, int64_t threads, const std::function<void(int64_t, int64_t, int64_t)>& work);
