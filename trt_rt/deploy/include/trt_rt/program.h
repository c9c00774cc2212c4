// A program that `trt-rt package` made, for C++: loads it with its mapped constants, and calls it.
//
// Needs PyTorch's headers and libtrt_rt_runtime.so. Everything is inline, so it is compiled with the PyTorch that the
// program uses.
#pragma once

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <trt_rt/program_input.h>
#include <trt_rt/runtime.h>

#include <fstream>
#include <memory>
#include <mutex>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

namespace trt_rt {

// What a mapped file of constants has. A tensor keeps the mapping as long as it lives.
struct Constants {
  std::vector<at::Tensor> arguments;                    // the compiled program takes these first: the plans
  std::unordered_map<std::string, at::Tensor> weights;  // AOTInductor's constants, by name
};

// Makes tensors over a mapped file.
//
// `device` is that of the program. On CUDA, arguments stay in mapped memory on the CPU, and weights are copied to the
// device. Raises std::runtime_error if the file is not there, or not one of `trt-rt package`.
inline Constants map_constants(const std::string& path, at::Device device) {
  const std::shared_ptr<trt_rt_constants> file(trt_rt_constants_open(path.c_str()), [](trt_rt_constants* opened) {
    if (opened != nullptr) trt_rt_constants_close(opened);
  });
  if (!file) throw std::runtime_error(trt_rt_last_error());
  Constants constants;
  for (std::size_t i = 0; i < trt_rt_constants_count(file.get()); ++i) {
    const trt_rt_constant constant = trt_rt_constants_get(file.get(), i);
    const auto dtype = dtypes().find(constant.dtype);
    if (dtype == dtypes().end())
      throw std::runtime_error("The constant '" + std::string(constant.name) + "' in '" + path + "' has the dtype " +
                               constant.dtype + ", which trt_rt/program.h does not know.");
    at::Tensor tensor =
        at::from_blob(const_cast<void*>(constant.data), at::IntArrayRef(constant.sizes, constant.rank),
                      [file](void*) {}, at::TensorOptions().dtype(dtype->second));
    if (constant.argument < 0) {
      constants.weights.emplace(constant.name, device.is_cpu() ? tensor : tensor.to(device));
      continue;
    }
    const auto place = static_cast<std::size_t>(constant.argument);
    if (constants.arguments.size() <= place) constants.arguments.resize(place + 1);
    constants.arguments[place] = tensor;
  }
  return constants;
}

// A program compiled by AOTInductor. Copies share it, and it stays until the last of them and the last call are gone.
//
// Calls from several threads wait for each other until their work is enqueued. With more `runners`, so many threads
// enqueue at once; on CUDA PyTorch then makes a call wait until the GPU has finished the work of a runner, so one stream
// is served best by one runner.
class Program {
 public:
  // `folder` is what `trt-rt package` wrote. `device_index` is the CUDA device; -1 is the current one.
  explicit Program(const std::string& folder, std::size_t runners = 1, int device_index = -1)
      : state_(std::make_shared<State>()) {
    const std::string path = folder + "/program.pt2";
    if (!std::ifstream(path))
      throw std::runtime_error("There is no program for C++ in '" + folder +
                               "' (no file program.pt2). Make one: trt-rt package model.pt2 -o '" + folder + "'");
    state_->is_alone = runners == 1;
    try {
      state_->loader = std::make_unique<torch::inductor::AOTIModelPackageLoader>(
          path, "model", /*run_single_threaded=*/state_->is_alone, runners, static_cast<c10::DeviceIndex>(device_index));
    } catch (const std::exception& error) {
      const std::string reason = error.what();
      throw std::runtime_error("PyTorch cannot load '" + path + "': " + reason.substr(0, reason.find('\n')) +
                               ". It must be a complete file of `trt-rt package`, made on a machine of this kind.");
    }
    load_constants(folder, device_index);
  }

  // Where the program expects its inputs.
  at::Device device() const { return state_->device; }

  // Takes the program's tensors in the order of its arguments, and returns its results as one list. On CUDA it runs on
  // the current stream of the program's device. Tensors that are not contiguous, as the example was, are copied.
  // Results have no gradients. Raises std::runtime_error with the reason.
  std::vector<at::Tensor> operator()(std::vector<at::Tensor> inputs) {
    const std::shared_ptr<State> state = state_;  // if another thread destroys this object during the call
    if (inputs.size() != state->inputs.size())
      throw std::runtime_error("The program takes " + std::to_string(state->inputs.size()) + " tensors, and got " +
                               std::to_string(inputs.size()) + ".");
    // AOTInductor takes the stream of the current device.
    const c10::OptionalDeviceGuard guard(state->device.is_cuda() ? std::optional<at::Device>(state->device)
                                                                 : std::nullopt);
    const at::AutoDispatchBelowAutograd without_gradients;
    Symbols symbols(state->symbols.size(), -1);
    for (std::size_t i = 0; i < inputs.size(); ++i)
      inputs[i] = state->inputs[i].checked(std::move(inputs[i]), state->device, symbols);
    const std::vector<at::Tensor>& arguments = state->constants.arguments;
    inputs.insert(inputs.begin(), arguments.begin(), arguments.end());
    std::unique_lock<std::mutex> turn(state->turns, std::defer_lock);
    if (state->is_alone) turn.lock();
    std::vector<at::Tensor> outputs;
    trt_rt_clear_error();
    try {
      outputs = state->loader->boxed_run(std::move(inputs));
    } catch (const std::exception& error) {
      const std::string reason = trt_rt_last_error();
      throw std::runtime_error(reason.empty() ? error.what() : reason);
    }
    // A program that PyTorch 2.11 compiled goes on after the error of an engine, with undefined tensors as its results.
    if (*trt_rt_last_error() != '\0') throw std::runtime_error(trt_rt_last_error());
    return outputs;
  }

 private:
  struct State {
    std::mutex turns;  // of threads, with one runner
    bool is_alone = false;
    std::vector<ProgramInput> inputs;
    std::vector<std::string> symbols;  // of sizes that vary
    at::Device device = at::kCPU;
    // The loader refers to the constants, so it is declared after them and destroyed first.
    Constants constants;
    std::unique_ptr<torch::inductor::AOTIModelPackageLoader> loader;
  };

  void load_constants(const std::string& folder, int device_index) {
    State& state = *state_;
    auto metadata = state.loader->get_metadata();
    if (metadata["AOTI_DEVICE_KEY"] == "cuda") {
      state.device = c10::impl::VirtualGuardImpl(at::kCUDA).getDevice();
      if (device_index >= 0) state.device.set_index(static_cast<c10::DeviceIndex>(device_index));
    }
    state.constants = map_constants(folder + "/constants.safetensors", state.device);
    const std::vector<std::string> names = state.loader->get_constant_fqns();
    bool is_complete = names.size() == state.constants.weights.size() &&
                       metadata["trt_rt_arguments"] == std::to_string(state.constants.arguments.size());
    for (const std::string& name : names) is_complete = is_complete && state.constants.weights.count(name) != 0;
    for (const at::Tensor& argument : state.constants.arguments) is_complete = is_complete && argument.defined();
    if (!is_complete)
      throw std::runtime_error("The constants in '" + folder + "/constants.safetensors' are not those of '" + folder +
                               "/program.pt2'. Copy both files from the same folder of `trt-rt package`.");
    std::istringstream lines(metadata["trt_rt_inputs"]);
    for (std::string line; std::getline(lines, line, ';');) state.inputs.emplace_back(line, state.symbols);
    state.loader->load_constants(state.constants.weights, /*use_inactive=*/false, /*check_full_update=*/true,
                                 /*user_managed=*/true);
  }

  std::shared_ptr<State> state_;
};

}  // namespace trt_rt
