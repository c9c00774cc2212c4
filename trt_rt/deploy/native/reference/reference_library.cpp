// libtrt_rt_reference.so: TensorRT's C++ ABI over plans of trt_rt's reference backend, on the CPU. This is not
// TensorRT. It runs small elementwise networks, so that C++ programs can be tested where there is no TensorRT.
//
// It goes through the same virtual tables as TensorRT, so the same code of the runtime is tested. TRT_RT_REFERENCE_VERSION
// is the version of TensorRT that it answers to, whose slots it fills.

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <memory>

#include "../error.h"
#include "reference_network.h"

#ifndef TRT_RT_REFERENCE_VERSION
#define TRT_RT_REFERENCE_VERSION 101601
#endif

namespace trt_rt::reference {
namespace {

using tensorrt::Dims;

constexpr std::int32_t kVersion = TRT_RT_REFERENCE_VERSION;
// Of an unknown version, only getInferLibVersion may be called.
constexpr tensorrt::Slots kSlots = tensorrt::major_of(kVersion) == 10 ? tensorrt::kSlots10 : tensorrt::kSlots11;
constexpr std::size_t kSlotCount = 64;

using Table = std::array<void*, kSlotCount>;

[[noreturn]] void unknown_method() {
  std::fputs("libtrt_rt_reference: a method was called that the C++ runtime does not use\n", stderr);
  std::abort();
}

struct Method {
  int slot;
  void* function;
};

template <class Function>
Method method(int slot, Function* function) {
  return {slot, reinterpret_cast<void*>(function)};
}

Table table_of(std::initializer_list<Method> methods) {
  Table table;
  table.fill(reinterpret_cast<void*>(&unknown_method));
  for (const Method& each : methods) table[each.slot] = each.function;
  return table;
}

// An object as TensorRT lays it out, with its implementation.
template <class Class>
struct Base : tensorrt::Object {
  explicit Base(const Table& methods)
      : tensorrt::Object{destructors(), &implementation_}, implementation_{methods.data(), static_cast<Class*>(this)} {}
  Base(const Base&) = delete;
  Base& operator=(const Base&) = delete;

  static Class& from(void* implementation) { return *static_cast<Implementation*>(implementation)->owner; }

 private:
  struct Implementation {
    void* const* methods;
    Class* owner;
  };

  static void* const* destructors() {
    static void* const table[] = {
        reinterpret_cast<void*>(&unknown_method),
        reinterpret_cast<void*>(+[](tensorrt::Object* object) { delete static_cast<Class*>(object); })};
    return table;
  }

  Implementation implementation_;
};

struct Log {
  void* logger;

  void error(const std::string& message) const {
    if (kSlots.major == 10)
      static_cast<tensorrt::Logger10*>(logger)->log(tensorrt::Severity::kERROR, message.c_str());
    else
      static_cast<tensorrt::Logger11*>(logger)->log(tensorrt::Severity::kERROR, message.c_str());
  }
};

Dims dims_of(const Sizes& sizes) {
  Dims dims{static_cast<std::int32_t>(sizes.size()), {}};
  std::copy(sizes.begin(), sizes.end(), dims.d);
  return dims;
}

Sizes sizes_of(const Dims& dims) { return {dims.d, dims.d + dims.nbDims}; }

const PlanTensor* find(const std::vector<PlanTensor>& tensors, const char* name) {
  const auto found =
      std::find_if(tensors.begin(), tensors.end(), [&](const PlanTensor& tensor) { return tensor.name == name; });
  return found != tensors.end() ? &*found : nullptr;
}

std::size_t bytes_of(tensorrt::DataType dtype) { return dtype == tensorrt::DataType::kINT64 ? 8 : 4; }

struct Context : Base<Context> {
  Context(std::shared_ptr<const Plan> plan, Log log);

  std::shared_ptr<const Plan> plan;
  Log log;
  int profile = 0;
  std::vector<Sizes> shapes;                            // of inputs; empty and unset at first
  std::vector<bool> has_shape;
  std::vector<void*> input_addresses, output_addresses;
  std::vector<tensorrt::OutputAllocator*> allocators;

  std::vector<Value> read_inputs() const;
  bool write_output(std::size_t index, const Value& value);
  bool run();
};

std::vector<Value> Context::read_inputs() const {
  std::vector<Value> inputs;
  for (std::size_t i = 0; i < plan->inputs.size(); ++i) {
    const PlanTensor& tensor = plan->inputs[i];
    if (!has_shape[i] || input_addresses[i] == nullptr)
      throw Error("input " + tensor.name + " has no shape or no address");
    if (tensor.dtype != tensorrt::DataType::kFLOAT) throw Error("input " + tensor.name + " is not float32");
    Value value{shapes[i], {}, {}};
    const auto* numbers = static_cast<const float*>(input_addresses[i]);
    value.numbers.assign(numbers, numbers + value.count());
    inputs.push_back(std::move(value));
  }
  return inputs;
}

bool Context::write_output(std::size_t index, const Value& value) {
  const PlanTensor& tensor = plan->outputs[index];
  const std::size_t bytes = value.count() * bytes_of(tensor.dtype);
  void* memory = output_addresses[index];
  if (auto* allocator = allocators[index]) {
    memory = allocator->reallocateOutputAsync(tensor.name.c_str(), nullptr, bytes, 256, nullptr);
    if (memory == nullptr) {
      log.error("the allocator gave no memory for output " + tensor.name);
      return false;
    }
    allocator->notifyShape(tensor.name.c_str(), dims_of(value.shape));
  }
  if (memory == nullptr) {
    log.error("output " + tensor.name + " has no address");
    return false;
  }
  const void* source = tensor.dtype == tensorrt::DataType::kINT64 ? static_cast<const void*>(value.indices.data())
                                                                  : value.numbers.data();
  if (bytes != 0) std::memcpy(memory, source, bytes);
  return true;
}

bool Context::run() {
  try {
    const std::vector<Value> outputs = evaluate(*plan, read_inputs());
    for (std::size_t i = 0; i < outputs.size(); ++i)
      if (!write_output(i, outputs[i])) return false;
    return true;
  } catch (const std::exception& error) {
    log.error(error.what());
    return false;
  }
}

Dims context_shape(void* self, const char* name) {
  Context& context = Context::from(self);
  try {
    const auto shapes = output_shapes(*context.plan, context.shapes);
    for (std::size_t i = 0; i < shapes.size(); ++i)
      if (context.plan->outputs[i].name == name) return dims_of(shapes[i]);
    for (std::size_t i = 0; i < context.shapes.size(); ++i)
      if (context.plan->inputs[i].name == name) return dims_of(context.shapes[i]);
    context.log.error(std::string("there is no tensor ") + name);
  } catch (const std::exception& error) {
    context.log.error(error.what());
  }
  return Dims{-1, {}};
}

bool set_input_shape(void* self, const char* name, const Dims* dims) {
  Context& context = Context::from(self);
  const PlanTensor* tensor = find(context.plan->inputs, name);
  if (tensor == nullptr) return false;
  const auto index = static_cast<std::size_t>(tensor - context.plan->inputs.data());
  const Sizes &smallest = tensor->smallest[context.profile], &largest = tensor->largest[context.profile];
  bool fits = static_cast<std::size_t>(dims->nbDims) == smallest.size();
  for (std::size_t i = 0; fits && i < smallest.size(); ++i)
    fits = dims->d[i] >= smallest[i] && dims->d[i] <= largest[i];
  if (!fits) {
    context.log.error(std::string("the shape of input ") + name + " is outside of the profile");
    return false;
  }
  context.shapes[index] = sizes_of(*dims);
  context.has_shape[index] = true;
  return true;
}

bool set_address(void* self, const char* name, void* address) {
  Context& context = Context::from(self);
  if (const PlanTensor* tensor = find(context.plan->inputs, name)) {
    context.input_addresses[tensor - context.plan->inputs.data()] = address;
    return true;
  }
  if (const PlanTensor* tensor = find(context.plan->outputs, name)) {
    context.output_addresses[tensor - context.plan->outputs.data()] = address;
    return true;
  }
  context.log.error(std::string("there is no tensor ") + name);
  return false;
}

bool set_allocator(void* self, const char* name, tensorrt::OutputAllocator* allocator) {
  Context& context = Context::from(self);
  const PlanTensor* tensor = find(context.plan->outputs, name);
  if (tensor != nullptr) context.allocators[tensor - context.plan->outputs.data()] = allocator;
  return tensor != nullptr;
}

bool set_profile(void* self, std::int32_t profile, void*) {
  Context& context = Context::from(self);
  if (profile < 0 || profile >= context.plan->profiles) return false;
  context.profile = profile;
  std::fill(context.has_shape.begin(), context.has_shape.end(), false);
  return true;
}

const Table& context_methods() {
  static const Table table = table_of({
      method(kSlots.setOptimizationProfileAsync, set_profile),
      method(kSlots.setInputShape, set_input_shape),
      method(kSlots.contextGetTensorShape, context_shape),
      method(kSlots.setTensorAddress, set_address),
      method(kSlots.inferShapes, +[](void* self, std::int32_t, const char**) -> std::int32_t {
        const auto& has_shape = Context::from(self).has_shape;
        return static_cast<std::int32_t>(std::count(has_shape.begin(), has_shape.end(), false));
      }),
      method(kSlots.setOutputAllocator, set_allocator),
      method(kSlots.enqueueV3, +[](void* self, void*) { return Context::from(self).run(); }),
  });
  return table;
}

Context::Context(std::shared_ptr<const Plan> given, Log logger)
    : Base(context_methods()),
      plan(std::move(given)),
      log(logger),
      shapes(plan->inputs.size()),
      has_shape(plan->inputs.size()),
      input_addresses(plan->inputs.size()),
      output_addresses(plan->outputs.size()),
      allocators(plan->outputs.size()) {}

struct Engine : Base<Engine> {
  Engine(Plan&& read, Log logger);

  const PlanTensor* tensor(const char* name) const {
    const PlanTensor* input = find(plan->inputs, name);
    return input != nullptr ? input : find(plan->outputs, name);
  }

  std::shared_ptr<const Plan> plan;
  Log log;
};

Dims engine_shape(void* self, const char* name) {
  const PlanTensor* tensor = Engine::from(self).tensor(name);
  return tensor != nullptr ? dims_of(tensor->shape) : Dims{-1, {}};
}

Dims profile_shape(void* self, const char* name, std::int32_t profile, tensorrt::OptProfileSelector select) {
  const PlanTensor* tensor = find(Engine::from(self).plan->inputs, name);
  if (tensor == nullptr) return Dims{-1, {}};
  return dims_of((select == tensorrt::OptProfileSelector::kMAX ? tensor->largest : tensor->smallest)[profile]);
}

const char* tensor_name(void* self, std::int32_t index) {
  const Plan& plan = *Engine::from(self).plan;
  const auto place = static_cast<std::size_t>(index);
  return (place < plan.inputs.size() ? plan.inputs[place] : plan.outputs[place - plan.inputs.size()]).name.c_str();
}

tensorrt::TensorIOMode tensor_mode(void* self, const char* name) {
  const Plan& plan = *Engine::from(self).plan;
  if (find(plan.inputs, name) != nullptr) return tensorrt::TensorIOMode::kINPUT;
  return find(plan.outputs, name) != nullptr ? tensorrt::TensorIOMode::kOUTPUT : tensorrt::TensorIOMode::kNONE;
}

const Table& engine_methods() {
  static const Table table = table_of({
      method(kSlots.createExecutionContext, +[](void* self, tensorrt::AllocationStrategy) -> tensorrt::Object* {
        return new Context(Engine::from(self).plan, Engine::from(self).log);
      }),
      method(kSlots.getNbOptimizationProfiles, +[](void* self) { return Engine::from(self).plan->profiles; }),
      method(kSlots.engineGetTensorShape, engine_shape),
      method(kSlots.getTensorDataType, +[](void* self, const char* name) {
        const PlanTensor* tensor = Engine::from(self).tensor(name);
        return tensor != nullptr ? tensor->dtype : tensorrt::DataType::kFLOAT;
      }),
      method(kSlots.getTensorLocation, +[](void*, const char*) { return tensorrt::TensorLocation::kDEVICE; }),
      method(kSlots.getTensorIOMode, tensor_mode),
      method(kSlots.getProfileShape, profile_shape),
      method(kSlots.getNbIOTensors, +[](void* self) {
        const Plan& plan = *Engine::from(self).plan;
        return static_cast<std::int32_t>(plan.inputs.size() + plan.outputs.size());
      }),
      method(kSlots.getIOTensorName, tensor_name),
      method(kSlots.getAliasedInputTensor, +[](void*, const char*) -> const char* { return nullptr; }),
  });
  return table;
}

Engine::Engine(Plan&& read, Log logger)
    : Base(engine_methods()), plan(std::make_shared<const Plan>(std::move(read))), log(logger) {}

struct Runtime : Base<Runtime> {
  explicit Runtime(void* logger);
  Log log;
};

tensorrt::Object* deserialize(void* self, const void* plan, std::size_t size) {
  const Log log = Runtime::from(self).log;
  try {
    return new Engine(Plan::read(static_cast<const std::uint8_t*>(plan), size), log);
  } catch (const std::exception& error) {
    log.error(error.what());
    return nullptr;
  }
}

const Table& runtime_methods() {
  static const Table table = table_of({method(kSlots.deserializeCudaEngine, deserialize)});
  return table;
}

Runtime::Runtime(void* logger) : Base(runtime_methods()), log{logger} {}

}  // namespace
}  // namespace trt_rt::reference

extern "C" {

__attribute__((visibility("default"))) std::int32_t getInferLibVersion() { return trt_rt::reference::kVersion; }

__attribute__((visibility("default"))) void* createInferRuntime_INTERNAL(void* logger, std::int32_t) {
  return static_cast<trt_rt::tensorrt::Object*>(new trt_rt::reference::Runtime(logger));
}

}  // extern "C"
