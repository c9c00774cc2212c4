// CUDA: PyTorch's current stream and device, and events between streams. Found at run time, so that one library
// serves PyTorch with and without CUDA.
#pragma once

#include <cstdint>

namespace trt_rt {

// A CUDA stream's handle. 0 is the legacy default stream.
using Stream = std::uintptr_t;

// Whether this process has a PyTorch with CUDA.
bool cuda_is_loaded();

// PyTorch's current stream of a device.
Stream current_stream(std::int32_t device_index);
// Whether the current stream is one that PyTorch did not make, so that its owner may destroy it.
bool current_stream_is_external(std::int32_t device_index, Stream stream);

// Makes a device current, and the earlier one when it goes.
class DeviceGuard {
 public:
  explicit DeviceGuard(std::int32_t device_index);
  ~DeviceGuard();
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  void* guard_ = nullptr;
};

// An event of the current device, made on first use.
class Event {
 public:
  Event() = default;
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  bool is_recorded() const { return event_ != nullptr; }
  void record(Stream stream);
  void make_wait(Stream stream) const;

 private:
  void* event_ = nullptr;  // kept to the end of the process, as executors are
};

// A new stream of the current device that does not wait for the legacy default stream.
Stream new_stream();

}  // namespace trt_rt
