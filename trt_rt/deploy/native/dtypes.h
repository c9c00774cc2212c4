// Data types: TensorRT's numbers, PyTorch's numbers and names.
#pragma once

#include <cstdint>
#include <string>

#include "tensorrt_interface.h"

namespace trt_rt {

// PyTorch's number; raises Error for one that PyTorch's stable ABI has no tensors of.
std::int32_t torch_dtype(tensorrt::DataType dtype, const std::string& tensor);

// Bytes of an element of a dtype that engines take.
std::int64_t element_size(std::int32_t torch_dtype);

// "float32", or "dtype 57" for one that no engine takes.
std::string dtype_name(std::int32_t torch_dtype);

}  // namespace trt_rt
