// PyTorch's stable C ABI, as far as the library uses it. All of it is in libtorch_cpu.so since PyTorch 2.10.
//
// These are our own declarations of PyTorch's torch/csrc/inductor/aoti_torch/c/shim.h and
// torch/csrc/stable/c/shim.h, so that neither building nor running depends on a version of its headers.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

struct AtenTensorOpaque;
struct StableListOpaque;
struct StringOpaque;
struct TorchLibraryOpaque;
struct DeviceGuardOpaque;
struct StreamOpaque;

using AtenTensorHandle = AtenTensorOpaque*;
using StableListHandle = StableListOpaque*;
using StringHandle = StringOpaque*;
using TorchLibraryHandle = TorchLibraryOpaque*;
using DeviceGuardHandle = DeviceGuardOpaque*;
using StreamHandle = StreamOpaque*;
using StableIValue = std::uint64_t;
using AOTITorchError = std::int32_t;  // 0 is success

std::int32_t aoti_torch_device_type_cpu();
std::int32_t aoti_torch_device_type_cuda();
std::int32_t aoti_torch_dtype_bfloat16();
std::int32_t aoti_torch_dtype_bool();
std::int32_t aoti_torch_dtype_float8_e4m3fn();
std::int32_t aoti_torch_dtype_float16();
std::int32_t aoti_torch_dtype_float32();
std::int32_t aoti_torch_dtype_int8();
std::int32_t aoti_torch_dtype_int32();
std::int32_t aoti_torch_dtype_int64();
std::int32_t aoti_torch_dtype_uint8();

AOTITorchError aoti_torch_new_tensor_handle(AtenTensorHandle tensor, AtenTensorHandle* same);
AOTITorchError aoti_torch_delete_tensor_object(AtenTensorHandle tensor);
AOTITorchError aoti_torch_get_data_ptr(AtenTensorHandle tensor, void** address);
AOTITorchError aoti_torch_get_dim(AtenTensorHandle tensor, std::int64_t* rank);
AOTITorchError aoti_torch_get_numel(AtenTensorHandle tensor, std::int64_t* count);
AOTITorchError aoti_torch_get_sizes(AtenTensorHandle tensor, std::int64_t** sizes);
AOTITorchError aoti_torch_get_dtype(AtenTensorHandle tensor, std::int32_t* dtype);
AOTITorchError aoti_torch_get_device_type(AtenTensorHandle tensor, std::int32_t* type);
AOTITorchError aoti_torch_get_device_index(AtenTensorHandle tensor, std::int32_t* index);
AOTITorchError aoti_torch_is_defined(AtenTensorHandle tensor, bool* is_defined);
AOTITorchError aoti_torch_is_contiguous(AtenTensorHandle tensor, bool* is_contiguous);
AOTITorchError aoti_torch_empty_strided(std::int64_t rank, const std::int64_t* sizes, const std::int64_t* strides,
                                        std::int32_t dtype, std::int32_t device_type, std::int32_t device_index,
                                        AtenTensorHandle* tensor);
AOTITorchError aoti_torch_copy_(AtenTensorHandle self, AtenTensorHandle source, std::int32_t non_blocking);
AOTITorchError aoti_torch__reinterpret_tensor(AtenTensorHandle self, std::int64_t rank, const std::int64_t* sizes,
                                              const std::int64_t* strides, std::int64_t offset,
                                              AtenTensorHandle* tensor);

AOTITorchError aoti_torch_create_device_guard(std::int32_t device_index, DeviceGuardHandle* guard);
AOTITorchError aoti_torch_delete_device_guard(DeviceGuardHandle guard);
AOTITorchError aoti_torch_get_current_device_index(std::int32_t* device_index);
AOTITorchError aoti_torch_get_current_stream(std::int32_t device_index, StreamHandle* stream);
AOTITorchError aoti_torch_delete_stream(StreamHandle stream);
AOTITorchError aoti_torch_stream_id(StreamHandle stream, std::int64_t* id);

AOTITorchError aoti_torch_library_init_fragment(const char* name, const char* file, std::uint32_t line,
                                                TorchLibraryHandle* library);
AOTITorchError aoti_torch_library_init_impl(const char* name, const char* key, const char* file, std::uint32_t line,
                                            TorchLibraryHandle* library);
AOTITorchError aoti_torch_library_def(TorchLibraryHandle library, const char* schema);
AOTITorchError torch_library_impl(TorchLibraryHandle library, const char* name,
                                  void (*kernel)(StableIValue*, std::uint64_t, std::uint64_t),
                                  std::uint64_t abi_version);

AOTITorchError torch_new_list_reserve_size(std::size_t size, StableListHandle* list);
AOTITorchError torch_list_size(StableListHandle list, std::size_t* size);
AOTITorchError torch_list_get_item(StableListHandle list, std::size_t index, StableIValue* item);
AOTITorchError torch_list_set_item(StableListHandle list, std::size_t index, StableIValue item);
AOTITorchError torch_list_push_back(StableListHandle list, StableIValue item);
AOTITorchError torch_delete_list(StableListHandle list);
AOTITorchError torch_string_length(StringHandle text, std::size_t* length);
AOTITorchError torch_string_c_str(StringHandle text, const char** characters);
AOTITorchError torch_delete_string(StringHandle text);

}  // extern "C"

namespace trt_rt {

// The version of the ABI that this file declares, in PyTorch's encoding: 2.10.
constexpr std::uint64_t kTorchAbiVersion = (std::uint64_t{2} << 56) | (std::uint64_t{10} << 48);

}  // namespace trt_rt
