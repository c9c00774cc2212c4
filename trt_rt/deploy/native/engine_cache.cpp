#include "engine_cache.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "cuda.h"
#include "error.h"
#include "sha256.h"

namespace trt_rt {
namespace {

constexpr std::size_t kMostDevices = 64;

}  // namespace

// What belongs to one `meta` text: its engine on each device.
struct Description {
  explicit Description(std::string_view given)
      : text(given), meta(EngineMeta::parse(given)), runs_on_cpu(TensorRTLibrary::runs_on_cpu(meta)) {
    TensorRTLibrary::check_backend(meta);
  }

  struct OnDevice {
    OnDevice(const EngineMeta& meta, const LoadedPlan& plan, Device device) : engine(meta, plan, device), pool(engine) {}
    Engine engine;
    ExecutorPool pool;
  };

  const std::string text;
  const EngineMeta meta;
  const bool runs_on_cpu;
  std::array<std::atomic<OnDevice*>, kMostDevices + 1> engines{};  // the CPU's, then those of CUDA devices
};

namespace {

// Everything below lives until the process ends: when static objects are destroyed, other threads may still run
// engines, and CUDA may be gone.
std::mutex& descriptions_mutex() {
  static auto* const mutex = new std::mutex;
  return *mutex;
}

std::mutex& loading_mutex() {
  static auto* const mutex = new std::mutex;
  return *mutex;
}

// A hash of a text's length and last bytes, read eight at a time: it is computed at every call. The end of a
// description has the plan's SHA-256.
std::uint64_t hash_of(std::string_view text) {
  std::uint64_t hash = text.size() * 0x9E3779B97F4A7C15ULL;
  text.remove_prefix(text.size() - std::min<std::size_t>(text.size(), 64));
  const char* bytes = text.data();
  std::size_t left = text.size();
  for (; left >= 8; left -= 8, bytes += 8) {
    std::uint64_t word;
    std::memcpy(&word, bytes, 8);
    hash = (hash ^ word) * 0x9FB21C651E98DF25ULL;
    hash ^= hash >> 32;
  }
  std::uint64_t word = 0;
  std::memcpy(&word, bytes, left);
  hash = (hash ^ word) * 0x9FB21C651E98DF25ULL;
  return hash ^ hash >> 32;
}

Description& find_description(std::string_view text) {
  static auto* const all = new std::unordered_map<std::string, std::unique_ptr<Description>>;
  const std::lock_guard<std::mutex> lock(descriptions_mutex());
  const auto found = all->find(std::string(text));
  if (found != all->end()) return *found->second;
  auto description = std::make_unique<Description>(text);  // may raise; then nothing is kept
  return *all->emplace(description->text, std::move(description)).first->second;
}

const LoadedPlan& load_plan(const EngineMeta& meta, const Tensor& plan, Device device);

}  // namespace

// Each thread remembers the descriptions that it has used, so that calls share no lock.
Description& description_of(std::string_view text) {
  thread_local std::array<Description*, 64> recent{};
  Description*& entry = recent[hash_of(text) % recent.size()];
  if (entry == nullptr || entry->text != text) entry = &find_description(text);
  return *entry;
}

namespace {

const LoadedPlan& load_plan(const EngineMeta& meta, const Tensor& plan, Device device) {
  static auto* const loaded = new std::map<std::string, std::unique_ptr<LoadedPlan>>;
  const std::string key = meta.backend + "\n" + meta.sha256 + "\n" + device.text();
  const auto found = loaded->find(key);
  if (found != loaded->end()) return *found->second;
  if (plan.dtype() != aoti_torch_dtype_uint8() || plan.rank() != 1 || !plan.is_contiguous())
    throw Error("The plan of the engine " + meta.sha256.substr(0, 8) +
                " must be a contiguous uint8 tensor of one dimension. The program is damaged.");
  Tensor on_cpu;  // a program that was moved to a GPU as a whole has its plans there
  if (plan.device().is_cuda) on_cpu = plan.copy(Device{});
  const auto* bytes = static_cast<const std::uint8_t*>((on_cpu ? on_cpu : plan).address());
  const auto size = static_cast<std::size_t>(plan.count());
  if (size == 0 || sha256(bytes, size) != meta.sha256)
    throw Error("The plan of the engine " + meta.sha256.substr(0, 8) + " is damaged or another one: the SHA-256 of its " +
                std::to_string(size) + " bytes is not the one in the program. Check that the files of the program "
                "were copied completely, and that all of them come from the same `trt-rt package`.");
  auto made = std::make_unique<LoadedPlan>(meta, bytes, size);
  return *loaded->emplace(key, std::move(made)).first->second;
}

}  // namespace

Device device_for(const Description& description, const TensorList& inputs) {
  const auto& tensors = description.meta.inputs;
  for (std::size_t i = 0; i < inputs.size() && i < tensors.size(); ++i) {
    if (tensors[i].is_host) continue;
    const Device device = inputs[i].device();
    if (device.is_cuda || description.runs_on_cpu) return device;
    throw Error("The " + describe("input", tensors[i].name, description.meta) +
                " must be on a CUDA device, because TensorRT runs on these only, and the tensor given is on the CPU.");
  }
  if (description.runs_on_cpu || description.meta.is_cpu_without_inputs) return Device{};
  if (!cuda_is_loaded())
    throw Error("TensorRT runs on CUDA devices, and this PyTorch is without CUDA. Use a PyTorch with CUDA.");
  Device device{true, 0};
  check_torch(aoti_torch_get_current_device_index(&device.index), "aoti_torch_get_current_device_index");
  return device;
}

ExecutorPool& engine_for(Description& description, const Tensor& plan, Device device) {
  const auto place = static_cast<std::size_t>(device.index + 1);
  if (place >= description.engines.size()) throw Error("There are more CUDA devices than this library knows.");
  auto& entry = description.engines[place];
  if (auto* found = entry.load(std::memory_order_acquire)) return found->pool;

  if (device.is_cuda && description.runs_on_cpu)
    throw Error("The engine " + description.meta.sha256.substr(0, 8) + " runs on the CPU (backend '" +
                description.meta.backend + "'), and its inputs are on " + device.text() + ".");
  const std::lock_guard<std::mutex> lock(loading_mutex());
  if (auto* found = entry.load(std::memory_order_relaxed)) return found->pool;
  auto* made = new Description::OnDevice(description.meta, load_plan(description.meta, plan, device), device);
  entry.store(made, std::memory_order_release);
  return made->pool;
}

}  // namespace trt_rt
