#include "dtypes.h"

#include "error.h"
#include "torch_abi.h"

namespace trt_rt {
namespace {

struct Row {
  tensorrt::DataType tensorrt;
  std::int32_t (*torch)();
  const char* name;
  std::int64_t bytes;
};

constexpr Row kRows[] = {
    {tensorrt::DataType::kBF16, aoti_torch_dtype_bfloat16, "bfloat16", 2},
    {tensorrt::DataType::kBOOL, aoti_torch_dtype_bool, "bool", 1},
    {tensorrt::DataType::kFLOAT, aoti_torch_dtype_float32, "float32", 4},
    {tensorrt::DataType::kFP8, aoti_torch_dtype_float8_e4m3fn, "float8_e4m3fn", 1},
    {tensorrt::DataType::kHALF, aoti_torch_dtype_float16, "float16", 2},
    {tensorrt::DataType::kINT32, aoti_torch_dtype_int32, "int32", 4},
    {tensorrt::DataType::kINT64, aoti_torch_dtype_int64, "int64", 8},
    {tensorrt::DataType::kINT8, aoti_torch_dtype_int8, "int8", 1},
    {tensorrt::DataType::kUINT8, aoti_torch_dtype_uint8, "uint8", 1},
};

}  // namespace

std::int32_t torch_dtype(tensorrt::DataType dtype, const std::string& tensor) {
  for (const Row& row : kRows)
    if (row.tensorrt == dtype) return row.torch();
  throw Error("The engine's tensor '" + tensor + "' has TensorRT's data type number " +
              std::to_string(static_cast<int>(dtype)) +
              ", for which PyTorch has no tensors. Build the engine with another dtype at this tensor.");
}

std::int64_t element_size(std::int32_t torch_dtype) {
  for (const Row& row : kRows)
    if (row.torch() == torch_dtype) return row.bytes;
  throw Error("An engine has a tensor of " + dtype_name(torch_dtype) + ", which is none of TensorRT's data types.");
}

std::string dtype_name(std::int32_t torch_dtype) {
  for (const Row& row : kRows)
    if (row.torch() == torch_dtype) return row.name;
  return "dtype number " + std::to_string(torch_dtype);
}

}  // namespace trt_rt
