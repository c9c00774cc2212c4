// The executors of an engine: one for each stream that calls, up to a limit. On the CPU a thread takes a stream's place.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>

#include "executor.h"

namespace trt_rt {

class ExecutorPool {
 public:
  explicit ExecutorPool(const Engine& engine) : engine_(engine) {}

  // Runs the engine on the caller's current stream, with that stream's executor.
  void run(const TensorList& inputs, TensorList& outputs);

 private:
  static constexpr std::size_t kMostExecutors = 8;  // as TRTModule's max_contexts

  // Aligned, so that calls of different streams write to different cache lines.
  struct alignas(64) Place {
    std::atomic<std::uintptr_t> key{0};  // the stream's, or 0
    std::atomic<std::int64_t> last_use{0};
    std::mutex mutex;  // held during a call
    std::unique_ptr<Executor> executor;
  };

  Place& lock_place(std::uintptr_t key, Stream stream);
  Place& lock_new_place(std::uintptr_t key, Stream stream);

  const Engine& engine_;
  std::mutex mutex_;  // held while a stream gets a place
  std::array<Place, kMostExecutors> places_;
};

}  // namespace trt_rt
