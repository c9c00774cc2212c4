#include "cuda.h"

#include <dlfcn.h>

#include <string>

#include "error.h"
#include "tensor.h"

namespace trt_rt {
namespace {

using CurrentStream = AOTITorchError (*)(std::int32_t, void**);

// The functions of CUDA's driver that the library uses. The driver keeps their ABI from version to version.
struct Driver {
  int (*event_create)(void**, unsigned);
  int (*event_record)(void*, void*);
  int (*stream_create)(void**, unsigned);
  int (*stream_wait_event)(void*, void*, unsigned);
  int (*get_error_string)(int, const char**);
};

constexpr unsigned kEventDisableTiming = 2, kStreamNonBlocking = 1;

template <class Function>
void find(void* handle, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(handle, name));
  if (function == nullptr) throw Error(std::string("CUDA's driver lacks the function ") + name + ".");
}

const Driver& driver() {
  static const Driver driver = [] {
    void* handle = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) throw Error(std::string("CUDA's driver does not load: ") + dlerror() + ".");
    Driver found;
    find(handle, "cuEventCreate", found.event_create);
    find(handle, "cuEventRecord", found.event_record);
    find(handle, "cuStreamCreate", found.stream_create);
    find(handle, "cuStreamWaitEvent", found.stream_wait_event);
    find(handle, "cuGetErrorString", found.get_error_string);
    return found;
  }();
  return driver;
}

void check(int code, const char* function) {
  if (code == 0) return;
  const char* reason = nullptr;
  driver().get_error_string(code, &reason);
  throw Error(std::string("CUDA's ") + function + " failed: " + (reason != nullptr ? reason : "unknown error") + ".");
}

// PyTorch's library, if it is in the process. Nothing is loaded: a second copy would have no state.
void* torch_cuda() { return dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_NOLOAD); }

CurrentStream find_current_stream() {
  void* handle = torch_cuda();
  void* function = handle != nullptr ? dlsym(handle, "aoti_torch_get_current_cuda_stream") : nullptr;
  if (function == nullptr)
    throw Error("PyTorch's libtorch_cuda.so is not in this process, or is older than 2.10. Use a PyTorch with CUDA.");
  return reinterpret_cast<CurrentStream>(function);
}

}  // namespace

bool cuda_is_loaded() {
  static const bool is_loaded = torch_cuda() != nullptr;
  return is_loaded;
}

Stream current_stream(std::int32_t device_index) {
  static const CurrentStream function = find_current_stream();
  void* stream = nullptr;
  check_torch(function(device_index, &stream), "aoti_torch_get_current_cuda_stream");
  return reinterpret_cast<Stream>(stream);
}

bool current_stream_is_external(std::int32_t device_index, Stream stream) {
  StreamHandle handle = nullptr;
  check_torch(aoti_torch_get_current_stream(device_index, &handle), "aoti_torch_get_current_stream");
  std::int64_t id = 0;
  const AOTITorchError code = aoti_torch_stream_id(handle, &id);
  aoti_torch_delete_stream(handle);
  check_torch(code, "aoti_torch_stream_id");
  return stream != 0 && static_cast<Stream>(id) == stream;  // PyTorch numbers its own streams
}

DeviceGuard::DeviceGuard(std::int32_t device_index) {
  std::int32_t current = -1;
  check_torch(aoti_torch_get_current_device_index(&current), "aoti_torch_get_current_device_index");
  if (current == device_index) return;
  DeviceGuardHandle guard = nullptr;
  check_torch(aoti_torch_create_device_guard(device_index, &guard), "aoti_torch_create_device_guard");
  guard_ = guard;
}

DeviceGuard::~DeviceGuard() {
  if (guard_ != nullptr) aoti_torch_delete_device_guard(static_cast<DeviceGuardHandle>(guard_));
}

void Event::record(Stream stream) {
  if (event_ == nullptr) check(driver().event_create(&event_, kEventDisableTiming), "cuEventCreate");
  check(driver().event_record(event_, reinterpret_cast<void*>(stream)), "cuEventRecord");
}

void Event::make_wait(Stream stream) const {
  check(driver().stream_wait_event(reinterpret_cast<void*>(stream), event_, 0), "cuStreamWaitEvent");
}

Stream new_stream() {
  void* stream = nullptr;
  check(driver().stream_create(&stream, kStreamNonBlocking), "cuStreamCreate");
  return reinterpret_cast<Stream>(stream);
}

}  // namespace trt_rt
