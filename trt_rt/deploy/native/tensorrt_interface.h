// The part of TensorRT's C++ ABI that a runtime needs, for TensorRT 10 and 11, without TensorRT's headers.
//
// An object of TensorRT has a pointer to its virtual table and then one to its implementation, `mImpl`. The methods
// are virtual functions of the implementation (VRuntime, VCudaEngine and VExecutionContext of the public header
// NvInferImpl.h), after two slots for the destructor. Within TensorRT 10, and within 11, new methods are appended, so
// one table of slots serves each. tests/deploy/test_tensorrt_headers.py compares all of this with the public headers.
#pragma once

#include <cstddef>
#include <cstdint>

namespace trt_rt::tensorrt {

constexpr std::int32_t kMostDims = 8;

struct Dims {
  std::int32_t nbDims;
  std::int64_t d[kMostDims];
};

enum class DataType : std::int32_t {
  kFLOAT = 0, kHALF = 1, kINT8 = 2, kINT32 = 3, kBOOL = 4, kUINT8 = 5, kFP8 = 6, kBF16 = 7, kINT64 = 8,
};
enum class TensorIOMode : std::int32_t { kNONE = 0, kINPUT = 1, kOUTPUT = 2 };
enum class TensorLocation : std::int32_t { kDEVICE = 0, kHOST = 1 };
enum class OptProfileSelector : std::int32_t { kMIN = 0, kOPT = 1, kMAX = 2 };
enum class AllocationStrategy : std::int32_t { kSTATIC = 0 };
enum class Severity : std::int32_t { kINTERNAL_ERROR = 0, kERROR = 1, kWARNING = 2, kINFO = 3, kVERBOSE = 4 };

// Slots of virtual tables, counted from 0, the two destructors included.
struct Slots {
  int major;
  // VRuntime
  int deserializeCudaEngine;
  // VCudaEngine
  int createExecutionContext;
  int getNbOptimizationProfiles;
  int engineGetTensorShape;
  int getTensorDataType;
  int getTensorLocation;
  int getTensorIOMode;
  int getProfileShape;
  int getNbIOTensors;
  int getIOTensorName;
  int getAliasedInputTensor;  // since 10.15
  // VExecutionContext
  int setOptimizationProfileAsync;
  int setInputShape;
  int contextGetTensorShape;
  int setTensorAddress;
  int inferShapes;
  int setOutputAllocator;
  int enqueueV3;
};

constexpr Slots kSlots10{10, 3, 5, 10, 19, 20, 21, 23, 29, 30, 31, 58, 17, 21, 22, 24, 28, 32, 37};
constexpr Slots kSlots11{11, 3, 5, 8, 15, 16, 17, 19, 25, 26, 27, 50, 16, 20, 21, 23, 27, 31, 36};

// The first version with getAliasedInputTensor. An older library has no such slot.
constexpr std::int32_t kFirstVersionWithAliases = 101500;

// getInferLibVersion() of TensorRT 10 and later: 101601 is 10.16.1. Earlier releases multiply by 1000.
constexpr std::int32_t major_of(std::int32_t version) { return version / 10000; }

constexpr const Slots* slots_of(std::int32_t version) {
  return major_of(version) == 10 ? &kSlots10 : major_of(version) == 11 ? &kSlots11 : nullptr;
}

// The layout of IRuntime, ICudaEngine and IExecutionContext.
struct Object {
  void* const* virtual_table;
  void* implementation;
};

// Calls the method in `slot` of an object's implementation.
template <class Result, class... Arguments>
Result call(const Object* object, int slot, Arguments... arguments) {
  void* const* table = *static_cast<void* const* const*>(object->implementation);
  return reinterpret_cast<Result (*)(void*, Arguments...)>(table[slot])(object->implementation, arguments...);
}

// Deletes an object by its deleting destructor, the second slot of its own table.
inline void destroy(Object* object) {
  reinterpret_cast<void (*)(Object*)>(object->virtual_table[1])(object);
}

// Interfaces that TensorRT calls. The order of the virtual functions is that of TensorRT's classes.

struct InterfaceInfo {
  const char* kind;
  std::int32_t major;
  std::int32_t minor;
};

class VersionedInterface {
 public:
  virtual std::int32_t getAPILanguage() const noexcept { return 0; }  // kCPP
  virtual InterfaceInfo getInterfaceInfo() const noexcept = 0;
  virtual ~VersionedInterface() noexcept = default;
};

class Logger10 {  // ILogger of TensorRT 10
 public:
  virtual void log(Severity severity, const char* message) noexcept = 0;
  virtual ~Logger10() = default;
};

class Logger11 : public VersionedInterface {  // ILogger of TensorRT 11
 public:
  InterfaceInfo getInterfaceInfo() const noexcept override { return {"ILogger", 1, 0}; }
  virtual void log(Severity severity, const char* message) noexcept = 0;
};

class OutputAllocator : public VersionedInterface {  // IOutputAllocator
 public:
  InterfaceInfo getInterfaceInfo() const noexcept override { return {"IOutputAllocator", 1, 0}; }
  virtual void* reallocateOutput(const char* name, void* memory, std::uint64_t size,
                                 std::uint64_t alignment) noexcept = 0;
  virtual void* reallocateOutputAsync(const char* name, void* memory, std::uint64_t size, std::uint64_t alignment,
                                      void* /*stream*/) {
    return reallocateOutput(name, memory, size, alignment);
  }
  virtual void notifyShape(const char* name, const Dims& dims) noexcept = 0;
};

}  // namespace trt_rt::tensorrt
