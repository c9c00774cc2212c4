#include "output_allocator.h"

#include <algorithm>

#include "dtypes.h"
#include "error.h"

namespace trt_rt {

void OutputAllocator::start() {
  memory_ = Tensor();
  dims_.nbDims = -1;
  failure_.clear();
}

void* OutputAllocator::reallocateOutput(const char*, void*, std::uint64_t size, std::uint64_t) noexcept {
  try {
    // In elements of the output's dtype, because PyTorch's C ABI cannot view bytes as another dtype.
    const std::int64_t bytes = element_size(tensor_.dtype);
    const std::int64_t count = std::max<std::int64_t>(1, (static_cast<std::int64_t>(size) + bytes - 1) / bytes);
    memory_ = Tensor::empty(&count, 1, tensor_.dtype, device_);
    return memory_.address();
  } catch (const std::exception& error) {  // must not travel through TensorRT
    try {
      failure_ = error.what();
    } catch (...) {
    }
    return nullptr;
  }
}

void OutputAllocator::notifyShape(const char*, const tensorrt::Dims& dims) noexcept { dims_ = dims; }

Tensor OutputAllocator::take() {
  if (dims_.nbDims < 0)
    throw Error("TensorRT reports a successful run, but gave no shape for output '" + tensor_.name + "'.");
  std::int64_t count = 1;
  for (int i = 0; i < dims_.nbDims; ++i) count *= dims_.d[i];
  if (count == 0) return Tensor::empty(dims_.d, dims_.nbDims, tensor_.dtype, device_);
  if (!memory_ || memory_.count() < count)
    throw Error("TensorRT reports a successful run, but asked for too little memory for output '" + tensor_.name +
                "' of shape " + shape_text(dims_.d, dims_.nbDims) + ".");
  Tensor result = memory_.reinterpreted(dims_.d, dims_.nbDims);
  memory_ = Tensor();
  return result;
}

}  // namespace trt_rt
