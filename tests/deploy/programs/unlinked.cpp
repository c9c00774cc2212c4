// A program that was linked without libtrt_rt_runtime.so calls the operator: unlinked [LIBRARY TO OPEN].
#include <dlfcn.h>

#include <cstdio>
#include <cstring>

#include "../../../trt_rt/deploy/native/torch_abi.h"

extern "C" {
AOTITorchError torch_call_dispatcher(const char* name, const char* overload, StableIValue* stack, std::uint64_t version);
AOTITorchError torch_new_string_handle(const char* text, std::size_t length, StringHandle* handle);
}

int main(int argc, char** argv) {
  if (argc > 1 && dlopen(argv[1], RTLD_NOW) == nullptr) {
    std::fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  StableListHandle inputs;
  AtenTensorHandle plan;
  StringHandle meta;
  const std::int64_t size = 1;
  torch_new_list_reserve_size(0, &inputs);
  aoti_torch_empty_strided(1, &size, &size, aoti_torch_dtype_uint8(), aoti_torch_device_type_cpu(), 0, &plan);
  torch_new_string_handle("{}", 2, &meta);
  StableIValue stack[] = {reinterpret_cast<StableIValue>(inputs), reinterpret_cast<StableIValue>(plan),
                          reinterpret_cast<StableIValue>(meta)};
  if (torch_call_dispatcher("trt_rt::execute_engine", "", stack, trt_rt::kTorchAbiVersion) == 0) return 1;
  void* library = argc > 1 ? dlopen(argv[1], RTLD_NOW) : RTLD_DEFAULT;
  const auto last_error = reinterpret_cast<const char* (*)()>(dlsym(library, "trt_rt_last_error"));
  if (last_error == nullptr) {  // not loaded; PyTorch 2.13 keeps the reason, earlier ones print it
    const auto what = reinterpret_cast<const char* (*)()>(dlsym(RTLD_DEFAULT, "torch_exception_get_what"));
    if (what != nullptr) std::fprintf(stderr, "%s\n", what());
    return 1;
  }
  const char* message = last_error();
  if (std::strstr(message, "is not valid") == nullptr) return 1;
  std::puts("the operator refuses the engine's description");
}
