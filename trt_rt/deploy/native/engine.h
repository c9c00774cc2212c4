// A deserialized plan, and an engine: the plan with the program's description of its tensors. Both live until the
// process ends.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine_meta.h"
#include "tensor.h"
#include "tensorrt_library.h"

namespace trt_rt {

// The range of an input's dimensions in one optimization profile.
struct ProfileRange {
  tensorrt::Dims smallest;
  tensorrt::Dims largest;
};

struct IOTensor {
  std::string name;
  std::int32_t dtype = 0;  // PyTorch's number
  bool is_on_host = false;  // a shape tensor, read from host memory
  int rank = 0;
  std::vector<MetaDimension> shape;         // as the program has it
  std::vector<ProfileRange> ranges;         // inputs: one for each profile
  bool is_written = false;                  // inputs: the engine writes an output into its memory
  int aliased_input = -1;                   // outputs: the index of the input whose memory the engine writes
};

// TensorRT's engine of a plan on one device. Several programs, or parts of one, may share it.
struct LoadedPlan {
  // Loads the plan on the current CUDA device, or on the CPU. Its bytes are not needed afterwards.
  LoadedPlan(const EngineMeta& meta, const std::uint8_t* plan, std::size_t size)
      : library(TensorRTLibrary::for_plan(meta, plan, size)), engine(library.deserialize(plan, size)) {}

  const TensorRTLibrary& library;
  tensorrt::Object* const engine;
};

class Engine {
 public:
  // Raises Error if plan and description do not belong together.
  Engine(const EngineMeta& meta, const LoadedPlan& plan, Device device);

  const EngineMeta& meta() const { return meta_; }
  Device device() const { return device_; }
  const tensorrt::Slots& slots() const { return plan_.library.slots(); }
  const std::vector<IOTensor>& inputs() const { return inputs_; }    // in the program's order
  const std::vector<IOTensor>& outputs() const { return outputs_; }  // in the program's order
  int profiles() const { return profiles_; }

  tensorrt::Object* new_context() const;

 private:
  template <class Result>
  Result ask(int slot, const std::string& name) const {
    return tensorrt::call<Result, const char*>(plan_.engine, slot, name.c_str());
  }
  IOTensor read_tensor(const MetaTensor& tensor, bool is_input) const;
  void read_ranges(IOTensor& input) const;
  void read_alias(IOTensor& output);
  void check_names() const;

  EngineMeta meta_;
  Device device_;
  const LoadedPlan& plan_;
  int profiles_;
  std::vector<IOTensor> inputs_;
  std::vector<IOTensor> outputs_;
};

}  // namespace trt_rt
