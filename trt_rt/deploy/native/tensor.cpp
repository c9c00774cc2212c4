#include "tensor.h"

#include "error.h"

namespace trt_rt {
namespace {

constexpr std::int64_t kMostDimensions = 64;

// PyTorch's numbers, asked for once.
const std::int32_t kCpu = aoti_torch_device_type_cpu();
const std::int32_t kCuda = aoti_torch_device_type_cuda();

// Strides of a contiguous tensor, as PyTorch computes them.
void contiguous_strides(const std::int64_t* sizes, std::int64_t rank, std::int64_t* strides) {
  if (rank > kMostDimensions) throw Error("A tensor has more than 64 dimensions.");
  std::int64_t stride = 1;
  for (std::int64_t i = rank; i-- > 0;) {
    strides[i] = stride;
    stride *= sizes[i] > 1 ? sizes[i] : 1;
  }
}

}  // namespace

void check_torch(AOTITorchError code, const char* function) {
  if (code != 0) throw Error(std::string("PyTorch's ") + function + " failed. PyTorch wrote the reason to stderr.");
}

std::int32_t Device::torch_type() const {
  return is_cuda ? kCuda : kCpu;
}

std::string shape_text(const std::int64_t* sizes, std::int64_t rank) {
  std::string text = "[";
  for (std::int64_t i = 0; i < rank; ++i) text += (i != 0 ? ", " : "") + std::to_string(sizes[i]);
  return text + "]";
}

Tensor Tensor::empty(const std::int64_t* sizes, std::int64_t rank, std::int32_t dtype, Device device) {
  std::int64_t strides[kMostDimensions];
  contiguous_strides(sizes, rank, strides);
  AtenTensorHandle handle = nullptr;
  const AOTITorchError code =
      aoti_torch_empty_strided(rank, sizes, strides, dtype, device.torch_type(), device.torch_index(), &handle);
  if (code != 0)
    throw Error("PyTorch could not allocate a tensor of shape " + shape_text(sizes, rank) + " on " + device.text() +
                ". It wrote the reason to stderr; most likely memory is exhausted.");
  return Tensor(handle);
}

void* Tensor::address() const {
  void* address = nullptr;
  check_torch(aoti_torch_get_data_ptr(handle_, &address), "aoti_torch_get_data_ptr");
  return address;
}

std::int64_t Tensor::rank() const {
  std::int64_t rank = 0;
  check_torch(aoti_torch_get_dim(handle_, &rank), "aoti_torch_get_dim");
  return rank;
}

std::int64_t Tensor::count() const {
  std::int64_t count = 0;
  check_torch(aoti_torch_get_numel(handle_, &count), "aoti_torch_get_numel");
  return count;
}

const std::int64_t* Tensor::sizes() const {
  std::int64_t* sizes = nullptr;
  check_torch(aoti_torch_get_sizes(handle_, &sizes), "aoti_torch_get_sizes");
  return sizes;
}

std::int32_t Tensor::dtype() const {
  std::int32_t dtype = 0;
  check_torch(aoti_torch_get_dtype(handle_, &dtype), "aoti_torch_get_dtype");
  return dtype;
}

Device Tensor::device() const {
  std::int32_t type = 0;
  check_torch(aoti_torch_get_device_type(handle_, &type), "aoti_torch_get_device_type");
  if (type == kCpu) return Device{};
  if (type != kCuda)
    throw Error("A tensor is neither on the CPU nor on a CUDA device. TensorRT runs on CUDA devices only.");
  Device device{true, 0};
  check_torch(aoti_torch_get_device_index(handle_, &device.index), "aoti_torch_get_device_index");
  return device;
}

bool Tensor::is_contiguous() const {
  bool is_contiguous = false;
  check_torch(aoti_torch_is_contiguous(handle_, &is_contiguous), "aoti_torch_is_contiguous");
  return is_contiguous;
}

bool Tensor::is_defined() const {
  bool is_defined = false;
  check_torch(aoti_torch_is_defined(handle_, &is_defined), "aoti_torch_is_defined");
  return is_defined;
}

Tensor Tensor::shared() const {
  AtenTensorHandle handle = nullptr;
  check_torch(aoti_torch_new_tensor_handle(handle_, &handle), "aoti_torch_new_tensor_handle");
  return Tensor(handle);
}

Tensor Tensor::copy(Device device) const {
  Tensor result = empty(sizes(), rank(), dtype(), device);
  check_torch(aoti_torch_copy_(result.handle_, handle_, 0), "aoti_torch_copy_");
  return result;
}

Tensor Tensor::reinterpreted(const std::int64_t* sizes, std::int64_t rank) const {
  std::int64_t strides[kMostDimensions];
  contiguous_strides(sizes, rank, strides);
  AtenTensorHandle handle = nullptr;
  check_torch(aoti_torch__reinterpret_tensor(handle_, rank, sizes, strides, 0, &handle),
              "aoti_torch__reinterpret_tensor");
  return Tensor(handle);
}

}  // namespace trt_rt
