// TensorRT's shared library: finding it, its version, its log, and its one runtime object.
#pragma once

#include <cstdint>
#include <string>

#include "engine_meta.h"
#include "tensorrt_interface.h"

namespace trt_rt {

// TensorRT reports a reason in its log and returns false or null. These are the last errors of this thread.
class TensorRTLog {
 public:
  static void clear() noexcept;
  // " TensorRT says: ...", or a sentence that it logged nothing.
  static std::string last_error();
};

// A loaded library. Lives until the process ends, because engines do.
class TensorRTLibrary {
 public:
  // The library that runs a plan. Loads it on first use; raises Error if there is none, or none that is known.
  static const TensorRTLibrary& for_plan(const EngineMeta& meta, const std::uint8_t* plan, std::size_t size);

  // Raises Error if no library that this one knows runs plans of the backend.
  static void check_backend(const EngineMeta& meta);

  // Whether the engine of a plan takes host memory: that of the reference library, and of a simulated TensorRT, for
  // which TRT_RT_TENSORRT_ON_CPU=1 says so. TensorRT itself runs on CUDA devices only.
  static bool runs_on_cpu(const EngineMeta& meta);

  const tensorrt::Slots& slots() const { return *slots_; }
  std::int32_t version() const { return version_; }
  bool has_aliases() const { return version_ >= tensorrt::kFirstVersionWithAliases; }
  const std::string& path() const { return path_; }

  // A new engine of the current CUDA device; raises Error with TensorRT's reason.
  tensorrt::Object* deserialize(const std::uint8_t* plan, std::size_t size) const;

 private:
  TensorRTLibrary(void* handle, std::string path);
  static const TensorRTLibrary* open(const std::string& name);  // null if the loader refuses it

  std::string path_;
  std::int32_t version_ = 0;
  const tensorrt::Slots* slots_ = nullptr;
  tensorrt::Object* runtime_ = nullptr;
};

// 10.16.1 for 101601.
std::string version_text(std::int32_t version);

}  // namespace trt_rt
