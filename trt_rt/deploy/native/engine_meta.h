// The operator's `meta` argument: what a plan is, and the tensors of its engine in the order of the program.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tensor.h"

namespace trt_rt {

// One dimension as `meta` has it: a number, or the name of a size that calls may choose.
struct MetaDimension {
  std::int64_t size = -1;  // -1 if `symbol` is set
  std::string symbol;
};

struct MetaTensor {
  std::string name;
  std::string dtype;  // PyTorch's name, as "float32"
  std::vector<MetaDimension> shape;
  bool is_host = false;  // a shape tensor, on the CPU in any case
};

struct EngineMeta {
  std::string backend;
  std::string sha256;
  std::vector<MetaTensor> inputs;
  std::vector<MetaTensor> outputs;
  std::vector<std::pair<std::string, std::string>> aliases;  // outputs, and the inputs in whose memory they are written
  bool is_cpu_without_inputs = false;  // for an engine that has no input on its device

  // Raises Error if the text is not what this version of the library knows.
  static EngineMeta parse(std::string_view text);
};

// "input 'x' of the engine 1a2b3c4d", for messages.
std::string describe(const char* kind, const std::string& name, const EngineMeta& meta);

}  // namespace trt_rt
