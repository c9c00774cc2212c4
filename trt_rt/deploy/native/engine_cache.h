// The engines of the process: each plan is loaded once for each device, on first use, and kept.
#pragma once

#include <string_view>

#include "executor_pool.h"

namespace trt_rt {

// What the process knows of one `meta` text: its tensors, and its engine on each device.
struct Description;

// The description of a text. Raises Error if the text is not valid. Valid until the process ends.
Description& description_of(std::string_view meta);

// The device of a call: that of the first input on a CUDA device, else where the engine runs without one.
Device device_for(const Description& description, const TensorList& inputs);

// The engine of a plan on a device. Loads it if it is not there yet: checks the plan's SHA-256, and raises Error if it
// is not the one of the description. `plan` is read only then.
ExecutorPool& engine_for(Description& description, const Tensor& plan, Device device);

}  // namespace trt_rt
