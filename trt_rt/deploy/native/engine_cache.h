// The engines of the process: each plan is loaded once for each device, on first use, and kept.
#pragma once

#include <string_view>

#include "executor_pool.h"

namespace trt_rt {

// The engine of the plan that `meta` describes, on a device. Loads it if it is not there yet: checks the plan's
// SHA-256, and raises Error if it is not the one of `meta`. `plan` is read only then.
ExecutorPool& engine_for(std::string_view meta, const Tensor& plan, Device device);

// The device of a call: that of the first input on a CUDA device, else where the engine of `meta` runs without one.
Device device_for(std::string_view meta, const std::vector<Tensor>& inputs);

}  // namespace trt_rt
