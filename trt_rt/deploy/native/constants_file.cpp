// Files of constants in the safetensors format, mapped into memory, and the rest of the C interface.

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "error.h"
#include "executor.h"
#include "json.h"
#include "trt_rt/runtime.h"

struct trt_rt_constants {
  struct Item {
    std::string name;
    std::string dtype;
    std::vector<std::int64_t> sizes;
    const void* data;
    std::int32_t argument;
  };

  ~trt_rt_constants() {
    if (memory != MAP_FAILED) munmap(memory, length);
  }

  void* memory = MAP_FAILED;
  std::size_t length = 0;
  std::vector<Item> items;
};

namespace trt_rt {
namespace {

struct Dtype {
  const char* safetensors;
  const char* torch;
  std::int64_t bytes;
};

constexpr Dtype kDtypes[] = {
    {"BF16", "bfloat16", 2}, {"BOOL", "bool", 1},     {"C128", "complex128", 16}, {"C64", "complex64", 8},
    {"F16", "float16", 2},   {"F32", "float32", 4},   {"F64", "float64", 8},      {"I16", "int16", 2},
    {"I32", "int32", 4},     {"I64", "int64", 8},     {"I8", "int8", 1},          {"U8", "uint8", 1},
};

[[noreturn]] void fail(const std::string& path, const std::string& why) {
  throw Error("The file of constants '" + path + "' " + why + ". Write it again with `trt-rt package`.");
}

void map_file(trt_rt_constants& constants, const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat status = {};
  if (file < 0 || fstat(file, &status) != 0) {
    const std::string reason = std::strerror(errno);
    if (file >= 0) close(file);
    fail(path, "cannot be opened: " + reason);
  }
  constants.length = static_cast<std::size_t>(status.st_size);
  if (constants.length >= 8) constants.memory = mmap(nullptr, constants.length, PROT_READ, MAP_PRIVATE, file, 0);
  const std::string reason = std::strerror(errno);
  close(file);
  if (constants.length < 8) fail(path, "has only " + std::to_string(constants.length) + " bytes, so it is truncated");
  if (constants.memory == MAP_FAILED) fail(path, "cannot be mapped: " + reason);
}

trt_rt_constants::Item read_item(const std::string& name, const Json& json, const std::uint8_t* data,
                                 std::uint64_t length, std::int32_t argument, const std::string& path) {
  trt_rt_constants::Item item{name, "", {}, nullptr, argument};
  std::int64_t count = 1, bytes = 0;
  for (const Dtype& dtype : kDtypes)
    if (json["dtype"].text() == dtype.safetensors) {
      item.dtype = dtype.torch;
      bytes = dtype.bytes;
    }
  if (bytes == 0) fail(path, "has the unknown dtype " + json["dtype"].text() + " for '" + name + "'");
  for (const Json& size : json["shape"].list()) {
    item.sizes.push_back(size.integer());
    if (size.integer() < 0 || __builtin_mul_overflow(count, size.integer(), &count))
      fail(path, "has an impossible shape for '" + name + "'");
  }
  const auto& offsets = json["data_offsets"].list();
  if (offsets.size() != 2 || __builtin_mul_overflow(count, bytes, &bytes)) fail(path, "has a malformed header");
  const std::int64_t begin = offsets[0].integer(), end = offsets[1].integer();
  if (begin < 0 || end < begin || static_cast<std::uint64_t>(end) > length || end - begin != bytes)
    fail(path, "does not have all of '" + name + "', so it is truncated or damaged");
  item.data = data + begin;
  return item;
}

// The names of the constants that are arguments, one a line, in their order.
std::vector<std::string> read_arguments(const Json& header) {
  std::vector<std::string> arguments;
  const Json* metadata = header.find("__metadata__");
  const Json* names = metadata != nullptr ? metadata->find("arguments") : nullptr;
  if (names == nullptr) return arguments;
  std::istringstream lines(names->text());
  for (std::string line; std::getline(lines, line);) arguments.push_back(line);
  return arguments;
}

void read_items(trt_rt_constants& constants, const std::string& path) {
  const auto* bytes = static_cast<const std::uint8_t*>(constants.memory);
  std::uint64_t header = 0;
  std::memcpy(&header, bytes, sizeof(header));
  if (header > constants.length - 8) fail(path, "has a header that is longer than the file");
  const std::string_view text(reinterpret_cast<const char*>(bytes) + 8, header);
  const Json json = Json::parse(text, "The header of '" + path + "'");
  const std::vector<std::string> arguments = read_arguments(json);
  for (const auto& [name, value] : json.members()) {
    if (name == "__metadata__") continue;
    const auto found = std::find(arguments.begin(), arguments.end(), name);
    const auto argument = static_cast<std::int32_t>(found != arguments.end() ? found - arguments.begin() : -1);
    constants.items.push_back(
        read_item(name, value, bytes + 8 + header, constants.length - 8 - header, argument, path));
  }
}

}  // namespace
}  // namespace trt_rt

extern "C" {

#define TRT_RT_EXPORT __attribute__((visibility("default")))

TRT_RT_EXPORT const char* trt_rt_version(void) { return TRT_RT_VERSION; }

TRT_RT_EXPORT const char* trt_rt_last_error(void) { return trt_rt::last_error(); }

TRT_RT_EXPORT void trt_rt_clear_error(void) { trt_rt::remember_error(""); }

TRT_RT_EXPORT void trt_rt_pre_allocated_outputs(int enabled) { trt_rt::outputs_are_pre_allocated = enabled != 0; }

TRT_RT_EXPORT trt_rt_constants* trt_rt_constants_open(const char* path) {
  try {
    auto constants = std::make_unique<trt_rt_constants>();
    trt_rt::map_file(*constants, path);
    trt_rt::read_items(*constants, path);
    return constants.release();
  } catch (const std::exception& error) {
    trt_rt::remember_error(error.what());
    return nullptr;
  }
}

TRT_RT_EXPORT std::size_t trt_rt_constants_count(const trt_rt_constants* constants) { return constants->items.size(); }

TRT_RT_EXPORT trt_rt_constant trt_rt_constants_get(const trt_rt_constants* constants, std::size_t index) {
  const auto& item = constants->items[index];
  return {item.name.c_str(), item.dtype.c_str(), static_cast<std::int32_t>(item.sizes.size()), item.sizes.data(),
          item.data,         item.argument};
}

TRT_RT_EXPORT void trt_rt_constants_close(trt_rt_constants* constants) { delete constants; }

}  // extern "C"
