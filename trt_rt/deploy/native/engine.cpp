#include "engine.h"

#include <algorithm>

#include "dtypes.h"
#include "error.h"

namespace trt_rt {

using tensorrt::Dims;

Engine::Engine(const EngineMeta& meta, const LoadedPlan& plan, Device device)
    : meta_(meta),
      device_(device),
      plan_(plan),
      profiles_(tensorrt::call<std::int32_t>(plan.engine, slots().getNbOptimizationProfiles)) {
  check_names();
  for (const MetaTensor& tensor : meta_.inputs) {
    inputs_.push_back(read_tensor(tensor, true));
    read_ranges(inputs_.back());
  }
  for (const MetaTensor& tensor : meta_.outputs) {
    outputs_.push_back(read_tensor(tensor, false));
    read_alias(outputs_.back());
  }
}

// The program must name every tensor of the engine, or a call would leave one unset.
void Engine::check_names() const {
  const auto count = tensorrt::call<std::int32_t>(plan_.engine, slots().getNbIOTensors);
  const auto has = [](const std::vector<MetaTensor>& tensors, const std::string& name) {
    return std::any_of(tensors.begin(), tensors.end(), [&](const MetaTensor& tensor) { return tensor.name == name; });
  };
  for (std::int32_t i = 0; i < count; ++i) {
    const std::string name = tensorrt::call<const char*, std::int32_t>(plan_.engine, slots().getIOTensorName, i);
    if (!has(meta_.inputs, name) && !has(meta_.outputs, name))
      throw Error("The engine " + meta_.sha256.substr(0, 8) + " has a tensor '" + name +
                  "' that the program does not name. The program and the plan do not belong together.");
  }
  if (static_cast<std::size_t>(count) != meta_.inputs.size() + meta_.outputs.size())
    throw Error("The program names " + std::to_string(meta_.inputs.size() + meta_.outputs.size()) +
                " tensors of the engine " + meta_.sha256.substr(0, 8) + ", which has " + std::to_string(count) +
                ". The program and the plan do not belong together.");
}

IOTensor Engine::read_tensor(const MetaTensor& tensor, bool is_input) const {
  IOTensor result;
  result.name = tensor.name;
  const auto mode = ask<tensorrt::TensorIOMode>(slots().getTensorIOMode, tensor.name);
  if (mode != (is_input ? tensorrt::TensorIOMode::kINPUT : tensorrt::TensorIOMode::kOUTPUT))
    throw Error("The program has '" + tensor.name + "' as an " + (is_input ? "input" : "output") + " of the engine " +
                meta_.sha256.substr(0, 8) + ", which has no such " + (is_input ? "input" : "output") +
                ". The program and the plan do not belong together.");
  result.dtype = torch_dtype(ask<tensorrt::DataType>(slots().getTensorDataType, tensor.name), tensor.name);
  result.is_on_host =
      ask<tensorrt::TensorLocation>(slots().getTensorLocation, tensor.name) == tensorrt::TensorLocation::kHOST;
  const Dims dims = ask<Dims>(slots().engineGetTensorShape, tensor.name);
  result.rank = dims.nbDims;
  result.shape = tensor.shape;
  if (result.rank != static_cast<int>(tensor.shape.size()) || dtype_name(result.dtype) != tensor.dtype)
    throw Error("The program has " + tensor.dtype + " of " + std::to_string(tensor.shape.size()) +
                " dimensions for " + describe(is_input ? "input" : "output", tensor.name, meta_) +
                ", which has " + dtype_name(result.dtype) + " of " + std::to_string(result.rank) +
                ". The program and the plan do not belong together.");
  return result;
}

void Engine::read_ranges(IOTensor& input) const {
  const auto bound = [&](int profile, tensorrt::OptProfileSelector select) {
    return tensorrt::call<Dims, const char*, std::int32_t, tensorrt::OptProfileSelector>(
        plan_.engine, slots().getProfileShape, input.name.c_str(), profile, select);
  };
  for (int profile = 0; profile < profiles_; ++profile)
    input.ranges.push_back(
        {bound(profile, tensorrt::OptProfileSelector::kMIN), bound(profile, tensorrt::OptProfileSelector::kMAX)});
}

void Engine::read_alias(IOTensor& output) {
  std::string input;
  if (plan_.library.has_aliases())
    if (const char* name = ask<const char*>(slots().getAliasedInputTensor, output.name)) input = name;
  for (const auto& [written, name] : meta_.aliases)  // earlier versions of TensorRT do not tell
    if (written == output.name) input = name;
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    if (inputs_[i].name != input) continue;
    if (inputs_[i].is_written)
      throw Error("Two outputs of the engine " + meta_.sha256.substr(0, 8) + " are written into its input '" + input +
                  "'. The program and the plan do not belong together.");
    output.aliased_input = static_cast<int>(i);
    inputs_[i].is_written = true;
  }
}

tensorrt::Object* Engine::new_context() const {
  TensorRTLog::clear();
  auto* context = tensorrt::call<tensorrt::Object*, tensorrt::AllocationStrategy>(
      plan_.engine, slots().createExecutionContext, tensorrt::AllocationStrategy::kSTATIC);
  if (context == nullptr)
    throw Error("TensorRT could not make an execution context for the engine " + meta_.sha256.substr(0, 8) +
                ". Most likely there is not enough free memory for its scratch space." + TensorRTLog::last_error());
  return context;
}

}  // namespace trt_rt
