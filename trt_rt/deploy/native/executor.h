// One execution context of an engine, for one stream, and what it was told.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "cuda.h"
#include "engine.h"
#include "output_allocator.h"
#include "tensor.h"

namespace trt_rt {

// Whether executors give the same output tensors at every call.
extern std::atomic<bool> outputs_are_pre_allocated;

class Executor {
 public:
  explicit Executor(const Engine& engine);
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // Runs the engine on the executor's stream; `outputs` gets its results. One thread at a time.
  // Work is enqueued when it returns, not done. After an Error the next call starts afresh.
  void run(const TensorList& inputs, TensorList& outputs);

  // Moves to another stream, whose work then waits for this executor's.
  void move_to(Stream stream, bool is_external);

 private:
  struct Slot {  // of one I/O tensor: what the context holds
    void* address = nullptr;
    tensorrt::Dims dims{-1, {}};
    Tensor kept;                                 // outputs: the tensor of every call, while these are pre-allocated
    std::unique_ptr<OutputAllocator> allocator;  // outputs: set once their size is known to depend on data
  };

  void take_input(std::size_t index, const Tensor& given);
  void check_input(const IOTensor& tensor, const Tensor& given) const;
  void check_shape(const IOTensor& tensor, const tensorrt::Dims& dims) const;
  void check_symbols() const;
  void note_shape(tensorrt::Dims& dims, const Tensor& given, std::int32_t rank);
  void set_shapes();
  int choose_profile() const;
  void find_output_shapes();
  void bind_output(std::size_t index, TensorList& outputs);
  void set_address(const IOTensor& tensor, Slot& slot, void* address);
  void enqueue();
  void forget();
  void* address_for_empty();
  [[noreturn]] void fail(const std::string& what) const;

  // The stream that TensorRT works on.
  Stream working_stream() const { return engine_.device().is_cuda && stream_ == 0 ? side_stream_ : stream_; }

  template <class Result, class... Arguments>
  Result ask(int slot, Arguments... arguments) const {
    return tensorrt::call<Result, Arguments...>(context_, slot, arguments...);
  }

  const Engine& engine_;
  tensorrt::Object* context_;  // never destroyed: executors live to the end of the process
  std::vector<Slot> inputs_;
  std::vector<Slot> outputs_;
  std::vector<Tensor> copies_;  // of inputs of this call that TensorRT cannot read where they are
  Tensor memory_for_empty_;
  bool shapes_are_set_ = false;
  bool shapes_changed_ = false;
  bool has_shape_tensors_ = false;
  int profile_ = 0;

  Stream stream_ = 0;
  Stream side_stream_ = 0;  // for calls from the legacy default stream, on which TensorRT synchronises
  bool stream_is_external_ = false;
  bool has_enqueued_ = false;
  Event entry_, exit_, done_;
};

}  // namespace trt_rt
