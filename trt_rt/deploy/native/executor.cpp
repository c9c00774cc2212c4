#include "executor.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "dtypes.h"
#include "error.h"

namespace trt_rt {
namespace {

using tensorrt::Dims;

constexpr std::uintptr_t kAlignment = 256;  // of addresses on CUDA, in bytes

std::string dims_text(const Dims& dims) { return shape_text(dims.d, dims.nbDims); }

bool fits(const Dims& dims, const ProfileRange& range) {
  for (int i = 0; i < dims.nbDims; ++i)
    if (dims.d[i] < range.smallest.d[i] || dims.d[i] > range.largest.d[i]) return false;
  return true;
}

bool has_unknown_size(const Dims& dims) {
  return dims.nbDims < 0 || std::any_of(dims.d, dims.d + dims.nbDims, [](std::int64_t size) { return size < 0; });
}

}  // namespace

std::atomic<bool> outputs_are_pre_allocated{false};

Executor::Executor(const Engine& engine) : engine_(engine), context_(engine.new_context()) {
  inputs_.resize(engine.inputs().size());
  outputs_.resize(engine.outputs().size());
  for (const IOTensor& input : engine.inputs()) has_shape_tensors_ |= input.is_on_host;
}

void Executor::run(const TensorList& inputs, TensorList& outputs) {
  const auto& tensors = engine_.inputs();
  if (inputs.size() != tensors.size())
    throw Error("The engine " + engine_.meta().sha256.substr(0, 8) + " takes " + std::to_string(tensors.size()) +
                " tensors, and got " + std::to_string(inputs.size()) + ".");
  TensorRTLog::clear();
  try {
    for (std::size_t i = 0; i < inputs.size(); ++i) check_input(tensors[i], inputs[i]);
    shapes_changed_ = !shapes_are_set_;
    for (std::size_t i = 0; i < inputs.size(); ++i) note_shape(inputs_[i].dims, inputs[i], tensors[i].rank);
    if (shapes_changed_) set_shapes();
    for (std::size_t i = 0; i < inputs.size(); ++i) take_input(i, inputs[i]);
    // TensorRT computes output shapes from the values of shape tensors, which may be new.
    if (shapes_changed_ || has_shape_tensors_) find_output_shapes();
    shapes_are_set_ = true;

    outputs.set_size(outputs_.size());
    for (std::size_t i = 0; i < outputs_.size(); ++i) bind_output(i, outputs);
    enqueue();
    for (std::size_t i = 0; i < outputs_.size(); ++i)
      if (outputs_[i].allocator) outputs[i] = outputs_[i].allocator->take();
    copies_.clear();
  } catch (...) {
    forget();
    throw;
  }
}

void Executor::check_input(const IOTensor& tensor, const Tensor& given) const {
  const auto what = [&] { return describe("input", tensor.name, engine_.meta()); };
  if (given.dtype() != tensor.dtype)
    throw Error("The " + what() + " is " + dtype_name(tensor.dtype) + ", and the tensor given is " +
                dtype_name(given.dtype()) + ". Convert it with .to() before the call.");
  if (given.rank() != tensor.rank)
    throw Error("The " + what() + " has " + std::to_string(tensor.rank) + " dimensions, and the tensor given has " +
                std::to_string(given.rank()) + ", in shape " + shape_text(given.sizes(), given.rank()) + ".");
  const Device device = tensor.is_on_host ? Device{} : engine_.device();
  if (given.device() != device)
    throw Error("The " + what() + " must be on " + device.text() +
                (tensor.is_on_host ? ", as TensorRT reads it in host memory" : "") +
                ", and the tensor given is on " + given.device().text() + ". Move it with .to() before the call.");
}

void Executor::note_shape(Dims& dims, const Tensor& given, std::int32_t rank) {
  const std::size_t bytes = rank * sizeof(std::int64_t);
  const std::int64_t* sizes = given.sizes();
  if (dims.nbDims == rank && (rank == 0 || std::memcmp(dims.d, sizes, bytes) == 0)) return;
  shapes_changed_ = true;
  dims.nbDims = rank;
  if (rank != 0) std::memcpy(dims.d, sizes, bytes);
}

// Tells the context the shapes of the inputs, and the profile that allows them.
void Executor::set_shapes() {
  shapes_are_set_ = false;
  for (std::size_t i = 0; i < inputs_.size(); ++i) check_shape(engine_.inputs()[i], inputs_[i].dims);
  check_symbols();
  const int profile = choose_profile();
  if (profile != profile_) {
    if (!ask<bool, std::int32_t, void*>(engine_.slots().setOptimizationProfileAsync, profile,
                                        reinterpret_cast<void*>(working_stream())))
      fail("could not switch to the optimization profile " + std::to_string(profile));
    profile_ = profile;
    for (Slot& slot : inputs_) slot.address = nullptr;
    for (Slot& slot : outputs_) slot.address = nullptr;
  }
  for (std::size_t i = 0; i < inputs_.size(); ++i)
    if (!ask<bool, const char*, const Dims*>(engine_.slots().setInputShape, engine_.inputs()[i].name.c_str(),
                                             &inputs_[i].dims))
      fail("refuses shape " + dims_text(inputs_[i].dims) + " for its input '" + engine_.inputs()[i].name + "'");
}

void Executor::check_shape(const IOTensor& tensor, const Dims& dims) const {
  for (int i = 0; i < dims.nbDims; ++i)
    if (tensor.shape[i].symbol.empty() && tensor.shape[i].size != dims.d[i])
      throw Error("The " + describe("input", tensor.name, engine_.meta()) + " has size " +
                  std::to_string(tensor.shape[i].size) + " in dimension " + std::to_string(i) +
                  ", and the tensor given has shape " + dims_text(dims) + ".");
}

// A size that several inputs share must be the same in all of them.
void Executor::check_symbols() const {
  std::map<std::string, std::pair<std::int64_t, std::string>> sizes;  // a symbol's size, and the input it comes from
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    const IOTensor& tensor = engine_.inputs()[i];
    for (int d = 0; d < tensor.rank; ++d) {
      if (tensor.shape[d].symbol.empty()) continue;
      const auto place = "dimension " + std::to_string(d) + " of '" + tensor.name + "'";
      const auto [found, is_new] = sizes.try_emplace(tensor.shape[d].symbol, inputs_[i].dims.d[d], place);
      if (!is_new && found->second.first != inputs_[i].dims.d[d])
        throw Error("The engine " + engine_.meta().sha256.substr(0, 8) + " needs the same size in " +
                    found->second.second + " and " + place + ", and got " + std::to_string(found->second.first) +
                    " and " + std::to_string(inputs_[i].dims.d[d]) + ".");
    }
  }
}

// The present profile if it allows the shapes, or the first one that does.
int Executor::choose_profile() const {
  const auto allows = [&](int profile) {
    for (std::size_t i = 0; i < inputs_.size(); ++i)
      if (!fits(inputs_[i].dims, engine_.inputs()[i].ranges[profile])) return false;
    return true;
  };
  if (allows(profile_)) return profile_;
  for (int profile = 0; profile < engine_.profiles(); ++profile)
    if (allows(profile)) return profile;
  std::string message = "No optimization profile of the engine " + engine_.meta().sha256.substr(0, 8) +
                        " allows the shapes of these inputs:";
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    message += "\n  '" + engine_.inputs()[i].name + "' has shape " + dims_text(inputs_[i].dims) + "; allowed:";
    for (int profile = 0; profile < engine_.profiles(); ++profile) {
      const ProfileRange& range = engine_.inputs()[i].ranges[profile];
      message += (profile != 0 ? ", or " : " ") + dims_text(range.smallest) + " to " + dims_text(range.largest);
    }
  }
  throw Error(message);
}

void Executor::take_input(std::size_t index, const Tensor& given) {
  const IOTensor& tensor = engine_.inputs()[index];
  void* address = nullptr;
  if (!given.find_address(address))
    throw Error("The " + describe("input", tensor.name, engine_.meta()) +
                " must be a dense tensor. Convert it with .to_dense() before the call.");
  const bool is_unaligned = engine_.device().is_cuda && !tensor.is_on_host &&
                            reinterpret_cast<std::uintptr_t>(address) % kAlignment != 0;
  // The operator must not change its inputs: an engine that writes into one gets a copy, which becomes the output.
  if (tensor.is_written || is_unaligned || !given.is_contiguous()) {
    copies_.resize(inputs_.size());
    copies_[index] = given.copy(tensor.is_on_host ? Device{} : engine_.device());
    address = copies_[index].address();
  }
  set_address(tensor, inputs_[index], address != nullptr ? address : address_for_empty());
}

void Executor::find_output_shapes() {
  const std::int32_t missing =
      ask<std::int32_t, std::int32_t, const char**>(engine_.slots().inferShapes, 0, nullptr);
  if (missing != 0) fail("cannot compute the shapes of its outputs from the inputs");
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    Slot& slot = outputs_[i];
    const IOTensor& tensor = engine_.outputs()[i];
    if (slot.allocator) continue;
    slot.kept = Tensor();
    slot.dims = ask<Dims, const char*>(engine_.slots().contextGetTensorShape, tensor.name.c_str());
    if (!has_unknown_size(slot.dims)) continue;
    slot.allocator = std::make_unique<OutputAllocator>(tensor, tensor.is_on_host ? Device{} : engine_.device());
    if (!ask<bool, const char*, tensorrt::OutputAllocator*>(engine_.slots().setOutputAllocator, tensor.name.c_str(),
                                                            slot.allocator.get()))
      fail("refuses an allocator for its output '" + tensor.name + "'");
  }
}

void Executor::bind_output(std::size_t index, TensorList& outputs) {
  Slot& slot = outputs_[index];
  const IOTensor& tensor = engine_.outputs()[index];
  if (slot.allocator) {
    slot.allocator->start();
    return;
  }
  const bool is_pre_allocated = outputs_are_pre_allocated.load(std::memory_order_relaxed);
  if (tensor.aliased_input >= 0) {
    outputs[index] = std::move(copies_[tensor.aliased_input]);
  } else if (is_pre_allocated && slot.kept) {
    outputs[index] = slot.kept.shared();
    if (slot.address != nullptr && !tensor.is_on_host) return;  // TensorRT has it from the last call
  } else {
    const Device device = tensor.is_on_host ? Device{} : engine_.device();
    outputs[index] = Tensor::empty(slot.dims.d, slot.dims.nbDims, tensor.dtype, device);
    slot.kept = is_pre_allocated ? outputs[index].shared() : Tensor();
  }
  void* address = outputs[index].address();
  set_address(tensor, slot, address != nullptr ? address : address_for_empty());
}

void Executor::set_address(const IOTensor& tensor, Slot& slot, void* address) {
  // Shape tensors are set at every call, because some runtimes copy their values when the address is set.
  if (slot.address == address && !tensor.is_on_host) return;
  slot.address = nullptr;
  if (!ask<bool, const char*, void*>(engine_.slots().setTensorAddress, tensor.name.c_str(), address))
    fail("refuses the address of its tensor '" + tensor.name + "'");
  slot.address = address;
}

// TensorRT refuses null, the address of PyTorch's empty tensors.
void* Executor::address_for_empty() {
  const std::int64_t size = kAlignment;
  if (!memory_for_empty_) memory_for_empty_ = Tensor::empty(&size, 1, aoti_torch_dtype_uint8(), engine_.device());
  return memory_for_empty_.address();
}

void Executor::enqueue() {
  const bool on_default_stream = engine_.device().is_cuda && stream_ == 0;
  if (on_default_stream) {
    entry_.record(0);
    entry_.make_wait(side_stream_);
  }
  const Stream stream = working_stream();
  has_enqueued_ = true;
  const bool has_run = ask<bool, void*>(engine_.slots().enqueueV3, reinterpret_cast<void*>(stream));
  if (on_default_stream) {
    exit_.record(side_stream_);
    exit_.make_wait(0);
  } else if (stream_is_external_) {
    done_.record(stream_);
  }
  if (has_run) return;
  for (const Slot& slot : outputs_)
    if (slot.allocator && !slot.allocator->failure().empty()) throw Error(slot.allocator->failure());
  fail("failed to run");
}

void Executor::move_to(Stream stream, bool is_external) {
  if (engine_.device().is_cuda) {
    if (has_enqueued_) {
      // The owner of an external stream may have destroyed it since; its last call recorded the event.
      if (!stream_is_external_) done_.record(stream_);
      done_.make_wait(stream);
    }
    if (stream == 0 && side_stream_ == 0) side_stream_ = new_stream();
  }
  stream_ = stream;
  stream_is_external_ = is_external;
}

void Executor::forget() {
  shapes_are_set_ = false;
  copies_.clear();
  for (Slot& slot : inputs_) slot.address = nullptr;
  for (Slot& slot : outputs_) slot.address = nullptr;
}

void Executor::fail(const std::string& what) const {
  throw Error("The engine " + engine_.meta().sha256.substr(0, 8) + " " + what + "." + TensorRTLog::last_error());
}

}  // namespace trt_rt
