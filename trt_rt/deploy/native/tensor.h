// Tensors of PyTorch: ownership, checks of its C functions, and what the library needs of a tensor.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "torch_abi.h"

namespace trt_rt {

// Raises Error if a function of PyTorch's C ABI has failed. PyTorch has printed the reason to stderr.
void check_torch(AOTITorchError code, const char* function);

struct Device {
  bool is_cuda = false;
  std::int32_t index = -1;  // -1 on the CPU

  bool operator==(const Device& other) const { return is_cuda == other.is_cuda && index == other.index; }
  bool operator!=(const Device& other) const { return !(*this == other); }
  std::string text() const { return is_cuda ? "cuda:" + std::to_string(index) : "cpu"; }
  std::int32_t torch_type() const;
  std::int32_t torch_index() const { return is_cuda ? index : 0; }
};

using Shape = std::vector<std::int64_t>;
std::string shape_text(const std::int64_t* sizes, std::int64_t rank);
inline std::string shape_text(const Shape& shape) {
  return shape_text(shape.data(), static_cast<std::int64_t>(shape.size()));
}

// An owned reference to a tensor.
class Tensor {
 public:
  Tensor() = default;
  explicit Tensor(AtenTensorHandle handle) : handle_(handle) {}
  Tensor(Tensor&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Tensor& operator=(Tensor&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  Tensor(const Tensor&) = delete;
  Tensor& operator=(const Tensor&) = delete;
  ~Tensor() {
    if (handle_ != nullptr) aoti_torch_delete_tensor_object(handle_);
  }

  // A new, contiguous, uninitialised tensor of PyTorch's allocator, for the current stream.
  static Tensor empty(const std::int64_t* sizes, std::int64_t rank, std::int32_t dtype, Device device);

  explicit operator bool() const { return handle_ != nullptr; }
  AtenTensorHandle handle() const { return handle_; }
  AtenTensorHandle release() { return std::exchange(handle_, nullptr); }

  void* address() const;
  // Whether the tensor has an address, as every dense tensor does.
  bool find_address(void*& address) const { return aoti_torch_get_data_ptr(handle_, &address) == 0; }
  std::int64_t rank() const;
  std::int64_t count() const;
  const std::int64_t* sizes() const;  // borrowed
  std::int32_t dtype() const;
  Device device() const;
  bool is_contiguous() const;
  bool is_defined() const;

  // Another reference to the same tensor.
  Tensor shared() const;
  // A contiguous copy in new memory, on `device`, made in the order of the current stream.
  Tensor copy(Device device) const;
  // The first bytes of this tensor's storage as a contiguous tensor of this shape, which shares and owns them.
  Tensor reinterpreted(const std::int64_t* sizes, std::int64_t rank) const;

 private:
  AtenTensorHandle handle_ = nullptr;
};

// The tensors of a call. Up to eight need no memory of the heap.
class TensorList {
 public:
  TensorList() = default;
  TensorList(const TensorList&) = delete;
  TensorList& operator=(const TensorList&) = delete;

  // To be called once: the list has no tensors before.
  void set_size(std::size_t size) {
    if (size > few_.size()) many_ = std::vector<Tensor>(size);
    size_ = size;
  }
  std::size_t size() const { return size_; }
  Tensor* begin() { return size_ <= few_.size() ? few_.data() : many_.data(); }
  const Tensor* begin() const { return size_ <= few_.size() ? few_.data() : many_.data(); }
  const Tensor* end() const { return begin() + size_; }
  Tensor& operator[](std::size_t index) { return begin()[index]; }
  const Tensor& operator[](std::size_t index) const { return begin()[index]; }

 private:
  std::array<Tensor, 8> few_;
  std::vector<Tensor> many_;
  std::size_t size_ = 0;
};

}  // namespace trt_rt
