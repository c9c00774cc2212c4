// Plans of trt_rt's reference backend, as far as the C++ reference engine runs them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "../tensorrt_interface.h"

namespace trt_rt::reference {

using Sizes = std::vector<std::int64_t>;

struct PlanTensor {
  std::string name;
  tensorrt::DataType dtype;
  Sizes shape;                           // -1 for a size that varies
  std::vector<Sizes> smallest, largest;  // inputs: for each profile
};

struct Weight {
  Sizes shape;
  std::vector<float> values;
};

// An argument of an operator: a value of the network, or a number.
struct Argument {
  int value = -1;
  float number = 0;
};

enum class Operation { add, clone, div, mul, neg, nonzero, nothing, relu, sub };

struct Node {
  Operation operation;
  std::vector<Argument> arguments;
};

// The values of the network are its inputs, then its weights, then the results of its nodes, in this order.
struct Plan {
  std::vector<PlanTensor> inputs;
  std::vector<PlanTensor> outputs;
  std::vector<Weight> weights;
  std::vector<Node> nodes;
  std::vector<int> results;  // the value of each output
  int profiles = 1;

  // Raises Error with the reason if this is no plan that the engine runs.
  static Plan read(const std::uint8_t* data, std::size_t size);
};

}  // namespace trt_rt::reference
