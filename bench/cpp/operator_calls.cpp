// Times a call from C++ beside the bare enqueueV3 of the same plan: operator_calls FOLDER LIBNVINFER [ROUNDS].
//
// FOLDER is a package around one engine with an input and an output of float32, as bench/cpp/make_package.py writes it.
// Prints the medians over rounds, in microseconds: the enqueue alone with fixed addresses; an operator of the same schema
// that does nothing; the operator through PyTorch's dispatcher, with fresh and with pre-allocated outputs; and the
// AOTInductor program, if FOLDER has one. They take turns, on one stream that is not the default stream.
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/ones.h>
#include <dlfcn.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/c/shim.h>
#include <trt_rt/program.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <sstream>

#include "../../trt_rt/deploy/native/tensorrt_interface.h"

namespace {

namespace tensorrt = trt_rt::tensorrt;
using Clock = std::chrono::steady_clock;

constexpr int kCalls = 100;

class Silent10 final : public tensorrt::Logger10 {
  void log(tensorrt::Severity severity, const char* message) noexcept override {
    if (severity <= tensorrt::Severity::kERROR) std::cerr << message << "\n";
  }
};

class Silent11 final : public tensorrt::Logger11 {
  void log(tensorrt::Severity severity, const char* message) noexcept override {
    if (severity <= tensorrt::Severity::kERROR) std::cerr << message << "\n";
  }
};

// PyTorch's functions for streams, in its CUDA builds only.
template <class Function>
Function torch_cuda(const char* name) {
  void* library = dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_NOLOAD);
  return library != nullptr ? reinterpret_cast<Function>(dlsym(library, name)) : nullptr;
}

struct Stream {
  void* handle = nullptr;

  explicit Stream(bool is_cuda) {
    if (!is_cuda) return;
    torch_cuda<int (*)(bool, int, void**)>("torch_get_cuda_stream_from_pool")(false, 0, &handle);
    torch_cuda<int (*)(void*, int)>("torch_set_current_cuda_stream")(handle, 0);
  }
  void synchronize() const {
    if (handle != nullptr) torch_cuda<int (*)(void*, int)>("torch_cuda_stream_synchronize")(handle, 0);
  }
};

// A context with its shapes and addresses set, so that a run is one call of TensorRT.
class Bare {
 public:
  Bare(const char* path, const at::Tensor& plan, const at::Tensor& input, const at::Tensor& output) {
    void* library = dlopen(path, RTLD_NOW);
    if (library == nullptr) throw std::runtime_error(dlerror());
    const int version = reinterpret_cast<int (*)()>(dlsym(library, "getInferLibVersion"))();
    slots_ = tensorrt::slots_of(version);
    if (slots_ == nullptr) throw std::runtime_error("unknown version of TensorRT");
    void* logger = slots_->major == 10 ? static_cast<void*>(new Silent10) : static_cast<void*>(new Silent11);
    const auto create = reinterpret_cast<void* (*)(void*, int)>(dlsym(library, "createInferRuntime_INTERNAL"));
    const auto* runtime = static_cast<tensorrt::Object*>(create(logger, version));
    const auto* engine = tensorrt::call<tensorrt::Object*, const void*, std::size_t>(
        runtime, slots_->deserializeCudaEngine, plan.data_ptr(), plan.numel());
    context_ = tensorrt::call<tensorrt::Object*>(engine, slots_->createExecutionContext,
                                                 tensorrt::AllocationStrategy::kSTATIC);
    for (int i = 0; i < tensorrt::call<int>(engine, slots_->getNbIOTensors); ++i) {
      const char* name = tensorrt::call<const char*, int>(engine, slots_->getIOTensorName, i);
      const bool is_input = tensorrt::call<tensorrt::TensorIOMode, const char*>(
                                engine, slots_->getTensorIOMode, name) == tensorrt::TensorIOMode::kINPUT;
      const at::Tensor& tensor = is_input ? input : output;
      tensorrt::Dims dims{static_cast<int>(tensor.dim()), {}};
      std::copy(tensor.sizes().begin(), tensor.sizes().end(), dims.d);
      if (is_input)
        tensorrt::call<bool, const char*, const tensorrt::Dims*>(context_, slots_->setInputShape, name, &dims);
      tensorrt::call<bool, const char*, void*>(context_, slots_->setTensorAddress, name, tensor.data_ptr());
    }
  }

  void run(void* stream) const {
    if (!tensorrt::call<bool, void*>(context_, slots_->enqueueV3, stream)) throw std::runtime_error("enqueueV3");
  }

 private:
  const tensorrt::Slots* slots_;
  const tensorrt::Object* context_;
};

// What PyTorch itself takes for a call of an operator of its stable ABI with these arguments: returns the list of inputs.
void nothing(StableIValue* stack, std::uint64_t, std::uint64_t) {
  aoti_torch_delete_tensor_object(reinterpret_cast<AtenTensorHandle>(stack[1]));
  torch_delete_string(reinterpret_cast<StringHandle>(stack[2]));
}

void register_nothing() {
  constexpr std::uint64_t abi_of_torch_2_10 = (std::uint64_t{2} << 56) | (std::uint64_t{10} << 48);
  TorchLibraryHandle definition = nullptr, implementation = nullptr;  // both live until the process ends
  if (aoti_torch_library_init_fragment("trt_rt_bench", __FILE__, __LINE__, &definition) != 0 ||
      aoti_torch_library_def(definition, "nothing(Tensor[] inputs, Tensor plan, str meta) -> Tensor[]") != 0 ||
      aoti_torch_library_init_impl("trt_rt_bench", "CompositeExplicitAutograd", __FILE__, __LINE__, &implementation) != 0 ||
      torch_library_impl(implementation, "nothing", nothing, abi_of_torch_2_10) != 0)
    throw std::runtime_error("the operator that does nothing cannot be registered");
}

template <class Call>
double round_of(const Stream& stream, const Call& call) {
  stream.synchronize();
  const auto start = Clock::now();
  for (int i = 0; i < kCalls; ++i) call();
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count() / kCalls;
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

int measure(const std::string& folder, const char* library, int rounds) {
  std::ifstream shape_file(folder + "/shape"), meta_file(folder + "/meta"), device_file(folder + "/device");
  std::string device_name;
  device_file >> device_name;
  const at::Device device(device_name);
  const Stream stream(device.is_cuda());
  std::unique_ptr<trt_rt::Program> program;
  if (std::ifstream(folder + "/program.pt2")) program = std::make_unique<trt_rt::Program>(folder);
  std::vector<std::int64_t> shape;
  for (std::int64_t size; shape_file >> size;) shape.push_back(size);
  std::stringstream meta;
  meta << meta_file.rdbuf();
  const at::Tensor plan = trt_rt::map_constants(folder + "/constants.safetensors", at::kCPU).arguments.at(0);
  const at::Tensor input = at::ones(shape, device), output = at::empty_like(input);

  const at::AutoDispatchBelowAutograd without_gradients;  // as trt_rt::Program calls engines
  const Bare bare(library, plan, input, output);
  const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("trt_rt::execute_engine", "");
  const c10::IValue meta_value(meta.str());
  register_nothing();
  const auto nothing_op = c10::Dispatcher::singleton().findSchemaOrThrow("trt_rt_bench::nothing", "");
  const auto call = [&](const c10::OperatorHandle& called) {
    torch::jit::Stack stack{c10::List<at::Tensor>({input}), plan, meta_value};
    called.callBoxed(stack);
    return stack[0].toTensorList().get(0);
  };
  const auto call_operator = [&] { return call(op); };
  const at::Tensor result = call_operator();
  bare.run(stream.handle);
  stream.synchronize();
  if (!result.equal(output) || (program && !(*program)({input})[0].equal(output))) throw std::runtime_error("results differ");

  std::vector<double> bare_times, nothing_times, operator_times, program_times, pre_allocated_times;
  for (int i = 0; i < rounds; ++i) {
    bare_times.push_back(round_of(stream, [&] { bare.run(stream.handle); }));
    nothing_times.push_back(round_of(stream, [&] { call(nothing_op); }));
    operator_times.push_back(round_of(stream, call_operator));
    trt_rt_pre_allocated_outputs(1);
    call_operator();
    pre_allocated_times.push_back(round_of(stream, call_operator));
    trt_rt_pre_allocated_outputs(0);
    if (program) program_times.push_back(round_of(stream, [&] { (*program)({input}); }));
  }
  std::printf("{\"enqueueV3\": %.3f, \"nothing\": %.3f", median(bare_times), median(nothing_times));
  std::printf(", \"operator\": %.3f", median(operator_times));
  std::printf(", \"pre_allocated\": %.3f", median(pre_allocated_times));
  if (program) std::printf(", \"program\": %.3f", median(program_times));
  std::printf(", \"rounds\": %d, \"calls\": %d}\n", rounds, kCalls);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: operator_calls FOLDER LIBNVINFER [ROUNDS]\n";
    return 2;
  }
  try {
    return measure(argv[1], argv[2], argc > 3 ? std::atoi(argv[3]) : 301);
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
