#include "tensorrt_library.h"

#include <dirent.h>
#include <dlfcn.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

#include "error.h"

namespace trt_rt {
namespace {

constexpr const char* kFolders = "TRT_RT_TENSORRT_LIBDIR";
constexpr int kKnownMajors[] = {11, 10};

thread_local std::string last_logged_error;

// TRT_RT_LOG=error, warning, info or verbose: TensorRT's messages of that level and above go to stderr.
int printed_severity() {
  static const int severity = [] {
    const char* level = std::getenv("TRT_RT_LOG");
    const char* const levels[] = {"", "error", "warning", "info", "verbose"};
    for (int i = 1; i < 5; ++i)
      if (level != nullptr && std::strcmp(level, levels[i]) == 0) return i;
    return -1;
  }();
  return severity;
}

void take_message(tensorrt::Severity severity, const char* message) noexcept {
  if (static_cast<int>(severity) <= printed_severity()) std::fprintf(stderr, "[TensorRT] %s\n", message);
  if (severity > tensorrt::Severity::kERROR) return;
  try {
    last_logged_error = message;
  } catch (...) {  // must not travel through TensorRT
  }
}

class LogOf10 final : public tensorrt::Logger10 {
  void log(tensorrt::Severity severity, const char* message) noexcept override { take_message(severity, message); }
};

class LogOf11 final : public tensorrt::Logger11 {
  void log(tensorrt::Severity severity, const char* message) noexcept override { take_message(severity, message); }
};

void* logger_for(int major) {
  static LogOf10* const log10 = new LogOf10;  // never deleted: TensorRT may log until the process ends
  static LogOf11* const log11 = new LogOf11;
  return major == 10 ? static_cast<void*>(log10) : static_cast<void*>(log11);
}

bool is_folder(const std::string& path) {
  struct stat status;
  return stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

std::vector<std::string> named_folders() {
  std::vector<std::string> folders;
  const char* value = std::getenv(kFolders);
  std::string_view rest = value != nullptr ? value : "";
  while (!rest.empty()) {
    const std::string_view folder = rest.substr(0, rest.find(':'));
    rest.remove_prefix(std::min(rest.size(), folder.size() + 1));
    if (folder.empty()) continue;
    if (!is_folder(std::string(folder)))
      throw Error(std::string(kFolders) + " names '" + std::string(folder) +
                  "', which is not a folder. Set it to the folder that has libnvinfer.so, or unset it.");
    folders.emplace_back(folder);
  }
  return folders;
}

// TensorRT's version that built the plan, as its header says; 0 if it does not. trt_rt/backend/plan_kind.py has the
// layout.
std::int32_t builder_version(const std::uint8_t* plan, std::size_t size) {
  if (size < 28 || std::memcmp(plan, "ftrt\0\0\0\0", 8) != 0) return 0;
  return plan[24] * 10000 + plan[25] * 100 + plan[26];
}

std::vector<std::string> library_names(const std::string& backend) {
  const std::string full = "nvinfer", lean = "nvinfer_lean", dispatch = "nvinfer_dispatch";
  if (backend == "tensorrt") return {full, lean, dispatch};
  if (backend == "tensorrt_lean") return {lean, full, dispatch};
  if (backend == "tensorrt_dispatch") return {dispatch, lean, full};
  throw Error("The program has a plan of the backend '" + backend +
              "'. The C++ runtime runs plans of TensorRT 10 and 11 (backends tensorrt, tensorrt_lean and "
              "tensorrt_dispatch), and small plans of the reference backend for tests. Build the program with "
              "backend=\"tensorrt\".");
}

// Major versions in the order in which to try them: the builder's, then newer ones, then older ones.
std::vector<int> majors_for(std::int32_t builder) {
  std::vector<int> majors(std::begin(kKnownMajors), std::end(kKnownMajors));
  const int own = tensorrt::major_of(builder);
  std::stable_sort(majors.begin(), majors.end(), [&](int a, int b) { return (a == own) > (b == own); });
  return majors;
}

// Files to try for a library in one folder: the known versions, the plain name, then any other version, which gets
// an error that names the version.
std::vector<std::string> files_in(const std::string& folder, const std::string& name,
                                  const std::vector<int>& majors) {
  std::vector<std::string> present;
  const std::string plain = "lib" + name + ".so";
  if (DIR* open_folder = opendir(folder.c_str())) {
    while (const dirent* entry = readdir(open_folder)) {
      const std::string file = entry->d_name;
      if (file == plain || file.rfind(plain + ".", 0) == 0) present.push_back(file);
    }
    closedir(open_folder);
  }
  std::vector<std::string> preferred;
  for (const int major : majors) preferred.push_back(plain + "." + std::to_string(major));
  preferred.push_back(plain);
  std::sort(present.begin(), present.end());
  std::stable_sort(present.begin(), present.end(), [&](const std::string& a, const std::string& b) {
    return std::find(preferred.begin(), preferred.end(), a) < std::find(preferred.begin(), preferred.end(), b);
  });
  for (std::string& file : present) file = folder + "/" + file;
  return present;
}

// The folder of this library, which has libtrt_rt_reference.so beside it.
std::string own_folder() {
  Dl_info info;
  if (dladdr(reinterpret_cast<const void*>(&own_folder), &info) == 0) return {};
  const std::string path = info.dli_fname;
  return path.substr(0, path.rfind('/') + 1);
}

template <class Function>
Function function_of(void* handle, const char* name, const std::string& path) {
  if (void* address = dlsym(handle, name)) return reinterpret_cast<Function>(address);
  throw Error("The library '" + path + "' has no function " + name + ", so it is not TensorRT's.");
}

}  // namespace

std::string version_text(std::int32_t version) {
  return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
         std::to_string(version % 100);
}

void TensorRTLog::clear() noexcept { last_logged_error.clear(); }

std::string TensorRTLog::last_error() {
  if (last_logged_error.empty()) return " TensorRT logged no reason.";
  return " TensorRT says: " + last_logged_error;
}

const TensorRTLibrary& TensorRTLibrary::for_plan(const EngineMeta& meta, const std::uint8_t* plan, std::size_t size) {
  if (meta.backend == "reference") {
    const std::string file = own_folder() + "libtrt_rt_reference.so";
    if (const TensorRTLibrary* library = open(file)) return *library;
    throw Error("The library of the reference engine does not load: " + std::string(dlerror()) +
                ". It belongs into the folder of libtrt_rt_runtime.so.");
  }
  const std::int32_t builder = builder_version(plan, size);
  const std::vector<int> majors = majors_for(builder);
  std::string tried;
  for (const std::string& name : library_names(meta.backend)) {
    std::vector<std::string> files;
    for (const std::string& folder : named_folders())
      for (std::string& file : files_in(folder, name, majors)) files.push_back(std::move(file));
    for (const int major : majors) files.push_back("lib" + name + ".so." + std::to_string(major));
    files.push_back("lib" + name + ".so");
    for (const std::string& file : files) {
      const TensorRTLibrary* library = open(file);
      if (library == nullptr) {
        tried += "\n  " + std::string(dlerror());
        continue;
      }
      if (builder > library->version())
        throw Error("The plan " + meta.sha256.substr(0, 8) + " was built by TensorRT " + version_text(builder) +
                    ", and '" + file + "' is the older TensorRT " + version_text(library->version()) +
                    ". No TensorRT runs the plans of a newer one. Install TensorRT " + version_text(builder) +
                    " or name its folder in " + kFolders + ".");
      return *library;
    }
  }
  throw Error(std::string("No TensorRT library could be loaded. Install libnvinfer (or libnvinfer_lean for "
                          "version-compatible plans), or name the folder that has it in ") +
              kFolders + ". Tried:" + tried);
}

void TensorRTLibrary::check_backend(const EngineMeta& meta) {
  if (meta.backend != "reference") library_names(meta.backend);
}

bool TensorRTLibrary::runs_on_cpu(const EngineMeta& meta) {
  const char* value = std::getenv("TRT_RT_TENSORRT_ON_CPU");
  return meta.backend == "reference" || (value != nullptr && std::strcmp(value, "1") == 0);
}

const TensorRTLibrary* TensorRTLibrary::open(const std::string& name) {
  static std::mutex mutex;
  static auto* const loaded = new std::vector<std::unique_ptr<TensorRTLibrary>>;
  const std::lock_guard<std::mutex> lock(mutex);
  for (const auto& library : *loaded)
    if (library->path_ == name) return library.get();
  void* handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) return nullptr;
  loaded->push_back(std::unique_ptr<TensorRTLibrary>(new TensorRTLibrary(handle, name)));
  return loaded->back().get();
}

TensorRTLibrary::TensorRTLibrary(void* handle, std::string path) : path_(std::move(path)) {
  version_ = function_of<std::int32_t (*)()>(handle, "getInferLibVersion", path_)();
  slots_ = tensorrt::slots_of(version_);
  if (slots_ == nullptr) {
    const std::int32_t old = version_ < 10000 ? version_ * 10 : version_;  // 8601 is 8.6.1
    throw Error("The library '" + path_ + "' is TensorRT " +
                (version_ < 10000 ? std::to_string(old / 10000) + "." + std::to_string(version_ / 100 % 10) + "." +
                                        std::to_string(version_ % 100)
                                  : version_text(version_)) +
                ". The C++ runtime knows TensorRT 10 and 11, and calls no other. Name the folder of one of these in " +
                kFolders + ", or install a newer trt_rt.");
  }
  TensorRTLog::clear();
  const auto create = function_of<void* (*)(void*, std::int32_t)>(handle, "createInferRuntime_INTERNAL", path_);
  runtime_ = static_cast<tensorrt::Object*>(create(logger_for(slots_->major), version_));
  if (runtime_ == nullptr)
    throw Error("TensorRT " + version_text(version_) + " ('" + path_ + "') could not make a runtime." +
                TensorRTLog::last_error());
}

tensorrt::Object* TensorRTLibrary::deserialize(const std::uint8_t* plan, std::size_t size) const {
  TensorRTLog::clear();
  auto* engine = tensorrt::call<tensorrt::Object*, const void*, std::size_t>(
      runtime_, slots_->deserializeCudaEngine, plan, size);
  if (engine == nullptr)
    throw Error("TensorRT " + version_text(version_) + " ('" + path_ +
                "') refuses the plan. A plan runs on the kind of GPU and, unless it was built to be "
                "version-compatible, on the version of TensorRT that it was built for." +
                TensorRTLog::last_error());
  return engine;
}

}  // namespace trt_rt
