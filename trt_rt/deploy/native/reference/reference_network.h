// The values of a reference plan's network: elementwise operators with broadcasting, and nonzero.
#pragma once

#include <vector>

#include "reference_plan.h"

namespace trt_rt::reference {

struct Value {
  Sizes shape;
  std::vector<float> numbers;
  std::vector<std::int64_t> indices;  // of nonzero, whose result is int64

  std::int64_t count() const;
};

// The values of all outputs, in order. Raises Error if shapes do not fit together.
std::vector<Value> evaluate(const Plan& plan, std::vector<Value> inputs);

// The shapes of all outputs for these shapes of inputs; -1 for a size that depends on data.
std::vector<Sizes> output_shapes(const Plan& plan, const std::vector<Sizes>& inputs);

}  // namespace trt_rt::reference
