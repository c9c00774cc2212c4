"""Compares the runtime's own declarations of TensorRT with the public headers, where these are at hand.

``TRT_RT_TENSORRT_HEADERS`` names folders with NvInfer.h of one or several versions, separated by ":".
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.deploy.building import ROOT, compile_cpp

FOLDERS = [folder for folder in os.environ.get("TRT_RT_TENSORRT_HEADERS", "").split(":") if folder]

# A pointer to a virtual function is one more than its offset in the table (Itanium C++ ABI).
PROBE = """
#include <NvInferRuntime.h>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include "{interface}"

namespace ours = trt_rt::tensorrt;
using namespace nvinfer1;

template <class Method> int slot(Method method) {{
  std::uintptr_t pointer;
  std::memcpy(&pointer, &method, sizeof(pointer));
  return static_cast<int>((pointer - 1) / sizeof(void*));
}}
#define SLOT(type, name) slot(&apiv::type::name)

// A class with the layout of TensorRT's objects tells where `mImpl` is.
struct Layout : IRuntime {{
  static std::size_t place() {{
    Layout* const object = reinterpret_cast<Layout*>(sizeof(void*) * 16);
    return reinterpret_cast<char*>(&object->mImpl) - reinterpret_cast<char*>(object);
  }}
}};

struct Context : IExecutionContext {{
  static std::size_t place() {{
    Context* const object = reinterpret_cast<Context*>(sizeof(void*) * 16);
    return reinterpret_cast<char*>(&object->mImpl) - reinterpret_cast<char*>(object);
  }}
}};

int main() {{
  constexpr int version = NV_TENSORRT_VERSION_INT(NV_TENSORRT_MAJOR, NV_TENSORRT_MINOR, NV_TENSORRT_PATCH);
  const ours::Slots* slots = ours::slots_of(version);
  if (slots == nullptr || slots->major != NV_TENSORRT_MAJOR) return 10;
  ICudaEngine* (apiv::VRuntime::*deserialize)(void const*, std::size_t) =
      &apiv::VRuntime::deserializeCudaEngine;
  if (slots->deserializeCudaEngine != slot(deserialize)) return 20;
  IExecutionContext* (apiv::VCudaEngine::*create)(ExecutionContextAllocationStrategy) =
      &apiv::VCudaEngine::createExecutionContext;
  if (slots->createExecutionContext != slot(create)) return 21;
  if (slots->getNbOptimizationProfiles != SLOT(VCudaEngine, getNbOptimizationProfiles)) return 22;
  if (slots->engineGetTensorShape != SLOT(VCudaEngine, getTensorShape)) return 23;
  if (slots->getTensorDataType != SLOT(VCudaEngine, getTensorDataType)) return 24;
  if (slots->getTensorLocation != SLOT(VCudaEngine, getTensorLocation)) return 25;
  if (slots->getTensorIOMode != SLOT(VCudaEngine, getTensorIOMode)) return 26;
  if (slots->getProfileShape != SLOT(VCudaEngine, getProfileShape)) return 27;
  if (slots->getNbIOTensors != SLOT(VCudaEngine, getNbIOTensors)) return 28;
  if (slots->getIOTensorName != SLOT(VCudaEngine, getIOTensorName)) return 29;
  if (slots->setOptimizationProfileAsync != SLOT(VExecutionContext, setOptimizationProfileAsync)) return 30;
  if (slots->setInputShape != SLOT(VExecutionContext, setInputShape)) return 31;
  if (slots->contextGetTensorShape != SLOT(VExecutionContext, getTensorShape)) return 32;
  if (slots->setTensorAddress != SLOT(VExecutionContext, setTensorAddress)) return 33;
  if (slots->inferShapes != SLOT(VExecutionContext, inferShapes)) return 34;
  if (slots->setOutputAllocator != SLOT(VExecutionContext, setOutputAllocator)) return 35;
  if (slots->enqueueV3 != SLOT(VExecutionContext, enqueueV3)) return 36;
#if {has_aliases}
  if (version < ours::kFirstVersionWithAliases) return 40;
  if (slots->getAliasedInputTensor != SLOT(VCudaEngine, getAliasedInputTensor)) return 41;
#else
  if (version >= ours::kFirstVersionWithAliases) return 42;
#endif

  if (Layout::place() != offsetof(ours::Object, implementation)) return 50;
  if (Context::place() != offsetof(ours::Object, implementation)) return 51;
  if (sizeof(Dims) != sizeof(ours::Dims) || offsetof(Dims, d) != offsetof(ours::Dims, d)) return 52;

  if (slot(&IOutputAllocator::reallocateOutput) != slot(&ours::OutputAllocator::reallocateOutput)) return 60;
  if (slot(&IOutputAllocator::reallocateOutputAsync) !=
      slot(&ours::OutputAllocator::reallocateOutputAsync)) return 61;
  if (slot(&IOutputAllocator::notifyShape) != slot(&ours::OutputAllocator::notifyShape)) return 62;
  if (slot(&IOutputAllocator::getInterfaceInfo) != slot(&ours::OutputAllocator::getInterfaceInfo)) return 63;
#if NV_TENSORRT_MAJOR == 10
  if (slot(&ILogger::log) != slot(&ours::Logger10::log)) return 64;
#else
  if (slot(&ILogger::log) != slot(&ours::Logger11::log)) return 65;
  if (slot(&ILogger::getInterfaceInfo) != slot(&ours::Logger11::getInterfaceInfo)) return 66;
#endif

#define SAME(theirs, own) static_assert(static_cast<int>(theirs) == static_cast<int>(own), "")
  SAME(DataType::kFLOAT, ours::DataType::kFLOAT);
  SAME(DataType::kHALF, ours::DataType::kHALF);
  SAME(DataType::kINT8, ours::DataType::kINT8);
  SAME(DataType::kINT32, ours::DataType::kINT32);
  SAME(DataType::kBOOL, ours::DataType::kBOOL);
  SAME(DataType::kUINT8, ours::DataType::kUINT8);
  SAME(DataType::kFP8, ours::DataType::kFP8);
  SAME(DataType::kBF16, ours::DataType::kBF16);
  SAME(DataType::kINT64, ours::DataType::kINT64);
  SAME(TensorIOMode::kINPUT, ours::TensorIOMode::kINPUT);
  SAME(TensorIOMode::kOUTPUT, ours::TensorIOMode::kOUTPUT);
  SAME(TensorLocation::kDEVICE, ours::TensorLocation::kDEVICE);
  SAME(TensorLocation::kHOST, ours::TensorLocation::kHOST);
  SAME(OptProfileSelector::kMIN, ours::OptProfileSelector::kMIN);
  SAME(OptProfileSelector::kMAX, ours::OptProfileSelector::kMAX);
  SAME(ExecutionContextAllocationStrategy::kSTATIC, ours::AllocationStrategy::kSTATIC);
  SAME(ILogger::Severity::kINTERNAL_ERROR, ours::Severity::kINTERNAL_ERROR);
  SAME(ILogger::Severity::kVERBOSE, ours::Severity::kVERBOSE);
}}
"""


# All that TensorRT's headers need of CUDA's.
CUDA_TYPES = "typedef struct CUstream_st* cudaStream_t;\ntypedef struct CUevent_st* cudaEvent_t;\n"


@pytest.mark.skipif(not FOLDERS, reason="TRT_RT_TENSORRT_HEADERS names no folder with TensorRT's headers")
@pytest.mark.parametrize("folder", FOLDERS or [""])
def test_the_interface_is_that_of_the_public_headers(folder: str, tmp_path: Path) -> None:
    (tmp_path / "cuda_runtime_api.h").write_text(CUDA_TYPES)
    source = tmp_path / "probe.cpp"
    source.write_text(
        PROBE.format(
            interface=ROOT / "trt_rt/deploy/native/tensorrt_interface.h",
            has_aliases=int(
                re.search(r"getAliasedInputTensor", (Path(folder) / "NvInferImpl.h").read_text()) is not None
            ),
        )
    )
    headers = [f"-I{folder}", f"-I{tmp_path}", "-Wno-invalid-offsetof", "-fno-access-control"]
    probe = compile_cpp(source, tmp_path / "probe", *headers)
    assert subprocess.run([probe], check=False).returncode == 0, "the number is in the probe's source"
