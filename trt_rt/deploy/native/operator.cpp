// Registers trt_rt::execute_engine with PyTorch when the library is loaded.

#include <dlfcn.h>

#include <string_view>

#include "engine_cache.h"
#include "error.h"
#include "tensor.h"

namespace trt_rt {
namespace {

// The module of the Python package that defines the operator.
constexpr const char* kPythonModule = "trt_rt.operator.definition";
constexpr const char* kSchema = "execute_engine(Tensor[] inputs, Tensor plan, str meta) -> Tensor[]";

// Arguments are owned by the kernel, also when it raises.
class List {
 public:
  explicit List(StableListHandle handle) : handle_(handle) {}
  List(const List&) = delete;
  List& operator=(const List&) = delete;
  ~List() {
    if (handle_ != nullptr) torch_delete_list(handle_);
  }
  StableListHandle handle() const { return handle_; }
  StableListHandle release() { return std::exchange(handle_, nullptr); }

 private:
  StableListHandle handle_;
};

class Text {
 public:
  explicit Text(StringHandle handle) : handle_(handle) {}
  Text(const Text&) = delete;
  Text& operator=(const Text&) = delete;
  ~Text() { torch_delete_string(handle_); }
  std::string_view view() const {
    const char* characters = nullptr;
    std::size_t length = 0;
    check_torch(torch_string_c_str(handle_, &characters), "torch_string_c_str");
    check_torch(torch_string_length(handle_, &length), "torch_string_length");
    return {characters, length};
  }

 private:
  StringHandle handle_;
};

void take_tensors(const List& list, TensorList& tensors) {
  std::size_t size = 0;
  check_torch(torch_list_size(list.handle(), &size), "torch_list_size");
  tensors.set_size(size);
  for (std::size_t i = 0; i < size; ++i) {
    StableIValue item = 0;
    check_torch(torch_list_get_item(list.handle(), i, &item), "torch_list_get_item");
    tensors[i] = Tensor(reinterpret_cast<AtenTensorHandle>(item));
  }
}

// Returns the tensors in the list that had `taken` inputs, whose tensors are not its own any more, or in a new list if
// they are fewer.
StableListHandle give_tensors(TensorList& tensors, List& list, std::size_t taken) {
  if (tensors.size() < taken) {
    StableListHandle handle = nullptr;
    check_torch(torch_new_list_reserve_size(tensors.size(), &handle), "torch_new_list_reserve_size");
    List shorter(handle);
    return give_tensors(tensors, shorter, 0);
  }
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const auto item = reinterpret_cast<StableIValue>(tensors[i].release());
    if (i < taken)
      check_torch(torch_list_set_item(list.handle(), i, item), "torch_list_set_item");
    else
      check_torch(torch_list_push_back(list.handle(), item), "torch_list_push_back");
  }
  return list.release();
}

void execute_engine(const TensorList& inputs, const Tensor& plan, std::string_view meta, TensorList& outputs) {
  Description& description = description_of(meta);
  const Device device = device_for(description, inputs);
  if (!device.is_cuda) return engine_for(description, plan, device).run(inputs, outputs);
  const DeviceGuard guard(device.index);
  engine_for(description, plan, device).run(inputs, outputs);
}

// An undefined tensor fails one check or another. These cost each call something; this question does not.
std::string explain(const std::exception& error, const TensorList& inputs) {
  for (std::size_t i = 0; i < inputs.size(); ++i)
    if (inputs[i] && !inputs[i].is_defined())
      return "Input " + std::to_string(i) + " of an engine is an undefined tensor. PyTorch empties the list of inputs "
             "that it gives to an operator of its stable ABI: give each call a list of its own.";
  return error.what();
}

void kernel(StableIValue* stack, std::uint64_t, std::uint64_t) {
  List list(reinterpret_cast<StableListHandle>(stack[0]));
  const Tensor plan(reinterpret_cast<AtenTensorHandle>(stack[1]));
  const Text meta(reinterpret_cast<StringHandle>(stack[2]));
  TensorList inputs, outputs;
  try {
    take_tensors(list, inputs);
    execute_engine(inputs, plan, meta.view(), outputs);
    stack[0] = reinterpret_cast<StableIValue>(give_tensors(outputs, list, inputs.size()));
  } catch (const std::exception& error) {
    const std::string message = explain(error, inputs);
    remember_error(message);
    throw Error(message);
  }
}

// Whether the Python package trt_rt has defined the operator in this process: then its kernel stays. PyTorch's C ABI
// has no question for "is it defined", and prints an error for a second definition, so Python is asked.
bool python_has_defined_it() {
  const auto is_initialized = reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "Py_IsInitialized"));
  if (is_initialized == nullptr || is_initialized() == 0) return false;
  const auto ensure = reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "PyGILState_Ensure"));
  const auto release = reinterpret_cast<void (*)(int)>(dlsym(RTLD_DEFAULT, "PyGILState_Release"));
  const auto modules = reinterpret_cast<void* (*)()>(dlsym(RTLD_DEFAULT, "PyImport_GetModuleDict"));
  const auto get = reinterpret_cast<void* (*)(void*, const char*)>(dlsym(RTLD_DEFAULT, "PyDict_GetItemString"));
  if (ensure == nullptr || release == nullptr || modules == nullptr || get == nullptr) return false;
  const int state = ensure();
  const bool is_there = get(modules(), kPythonModule) != nullptr;
  release(state);
  return is_there;
}

bool register_operator() {
  if (python_has_defined_it()) return false;
  // Both libraries live until the process ends. The kernel serves every backend: inputs may be on CUDA and the plan
  // on the CPU.
  TorchLibraryHandle definition = nullptr, implementation = nullptr;
  return aoti_torch_library_init_fragment("trt_rt", __FILE__, __LINE__, &definition) == 0 &&
         aoti_torch_library_def(definition, kSchema) == 0 &&
         aoti_torch_library_init_impl("trt_rt", "CompositeExplicitAutograd", __FILE__, __LINE__, &implementation) == 0 &&
         torch_library_impl(implementation, "execute_engine", kernel, kTorchAbiVersion) == 0;
}

const bool is_registered = register_operator();

}  // namespace
}  // namespace trt_rt

