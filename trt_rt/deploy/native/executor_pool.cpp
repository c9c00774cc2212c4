#include "executor_pool.h"

#include <time.h>

namespace trt_rt {
namespace {

// Coarse, because it is read at every call, and only the order of uses long ago matters.
std::int64_t coarse_time() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &time);
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

thread_local char thread_mark;

}  // namespace

void ExecutorPool::run(const TensorList& inputs, TensorList& outputs) {
  const Device device = engine_.device();
  const Stream stream = device.is_cuda ? current_stream(device.index) : 0;
  // Never 0. A thread's mark may get the address of an ended thread's; it then takes over that executor.
  const std::uintptr_t key = device.is_cuda ? stream + 1 : reinterpret_cast<std::uintptr_t>(&thread_mark);
  Place& place = lock_place(key, stream);
  const std::lock_guard<std::mutex> lock(place.mutex, std::adopt_lock);
  place.last_use.store(coarse_time(), std::memory_order_relaxed);
  place.executor->run(inputs, outputs);
}

ExecutorPool::Place& ExecutorPool::lock_place(std::uintptr_t key, Stream stream) {
  for (Place& place : places_) {
    if (place.key.load(std::memory_order_acquire) != key) continue;
    place.mutex.lock();
    if (place.key.load(std::memory_order_relaxed) == key) return place;
    place.mutex.unlock();  // another stream has taken it over meanwhile
  }
  return lock_new_place(key, stream);
}

ExecutorPool::Place& ExecutorPool::lock_new_place(std::uintptr_t key, Stream stream) {
  const bool is_external = engine_.device().is_cuda && current_stream_is_external(engine_.device().index, stream);
  const std::lock_guard<std::mutex> lock(mutex_);
  Place* oldest = nullptr;
  for (Place& place : places_) {
    const std::uintptr_t other = place.key.load(std::memory_order_relaxed);
    if (other == key) {  // another thread with this stream was faster
      place.mutex.lock();
      return place;
    }
    const auto age = [](const Place& p) { return p.key == 0 ? -1 : p.last_use.load(std::memory_order_relaxed); };
    if (oldest == nullptr || age(place) < age(*oldest)) oldest = &place;
  }
  std::unique_lock<std::mutex> call(oldest->mutex);  // waits for a call that is under way
  oldest->key.store(0, std::memory_order_relaxed);
  if (!oldest->executor) oldest->executor = std::make_unique<Executor>(engine_);
  oldest->executor->move_to(stream, is_external);
  oldest->key.store(key, std::memory_order_release);
  call.release();
  return *oldest;
}

}  // namespace trt_rt
