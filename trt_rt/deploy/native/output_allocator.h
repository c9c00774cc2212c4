// Memory of an output whose size TensorRT finds during the run.
#pragma once

#include <string>

#include "engine.h"
#include "tensor.h"
#include "tensorrt_interface.h"

namespace trt_rt {

// Gives TensorRT memory of PyTorch's allocator, which becomes the output's storage without a copy.
class OutputAllocator final : public tensorrt::OutputAllocator {
 public:
  OutputAllocator(const IOTensor& tensor, Device device) : tensor_(tensor), device_(device) {}

  void start();   // before a run
  Tensor take();  // after a successful one; raises Error if TensorRT reported no shape
  // Why memory was refused during the run, or "".
  const std::string& failure() const { return failure_; }

  void* reallocateOutput(const char* name, void* memory, std::uint64_t size,
                         std::uint64_t alignment) noexcept override;
  void notifyShape(const char* name, const tensorrt::Dims& dims) noexcept override;

 private:
  const IOTensor& tensor_;
  const Device device_;
  Tensor memory_;
  tensorrt::Dims dims_{-1, {}};
  std::string failure_;
};

}  // namespace trt_rt
