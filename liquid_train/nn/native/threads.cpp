#include "threads.h"

#include <dlfcn.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

namespace {

class Pool {
 public:
  void run(int64_t count, const std::function<void(int64_t)>& work) {
    std::lock_guard<std::mutex> one_caller(callers_);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      work_ = &work;
      next_ = 1;
      count_ = count;
      unfinished_ = count - 1;
      while (started_ < count - 1) {
        std::thread([this] { serve(); }).detach();
        started_++;
      }
    }
    wake_.notify_all();
    work(0);
    std::unique_lock<std::mutex> lock(mutex_);
    // What no thread has taken yet is done here.
    while (next_ < count_) {
      int64_t slice = next_++;
      lock.unlock();
      work(slice);
      lock.lock();
      unfinished_--;
    }
    done_.wait(lock, [this] { return unfinished_ == 0; });
    work_ = nullptr;
  }

 private:
  void serve() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wake_.wait(lock, [this] { return work_ != nullptr && next_ < count_; });
      int64_t slice = next_++;
      const auto* work = work_;
      lock.unlock();
      (*work)(slice);
      lock.lock();
      if (--unfinished_ == 0) done_.notify_one();
    }
  }

  std::mutex callers_, mutex_;
  std::condition_variable wake_, done_;
  const std::function<void(int64_t)>* work_ = nullptr;
  int64_t next_ = 0, count_ = 0, unfinished_ = 0, started_ = 0;
};

// Pools are never destroyed: their threads may outlive the end of main.
Pool* pool = new Pool;

// How a compiler of OpenMP runs a region on a team of threads.
typedef void (*Parallel)(void (*work)(void*), void* data, unsigned threads, unsigned flags);

// That of the OpenMP that PyTorch has loaded, if any. Its threads wait awake for their next region: others
// would have to take the cores from them first.
Parallel parallel = reinterpret_cast<Parallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));

// A forked child has none of its parent's threads and perhaps a held lock.
const int registered = pthread_atfork(nullptr, nullptr, [] {
  pool = new Pool;
  parallel = nullptr;
});

struct Region {
  const std::function<void(int64_t)>& work;
  const int64_t count;
  std::atomic<int64_t> next{0};
};

// A team may be smaller than asked for, so its threads take slices while there are any.
void take(void* data) {
  Region& region = *static_cast<Region*>(data);
  for (int64_t slice; (slice = region.next++) < region.count;) region.work(slice);
}

}  // namespace

void share(int64_t rows, int64_t threads, const std::function<void(int64_t, int64_t, int64_t)>& work) {
  int64_t count = std::max<int64_t>(1, std::min(rows, threads));
  auto slice = [&](int64_t index) { work(index, rows * index / count, rows * (index + 1) / count); };
  if (count == 1)
    slice(0);
  else if (parallel) {
    const std::function<void(int64_t)> wrapped = slice;
    Region region{wrapped, count};
    // PyTorch's own regions have this many threads: another number would end some of them.
    parallel(take, &region, static_cast<unsigned>(threads), 0);
  } else
    pool->run(count, slice);
}
