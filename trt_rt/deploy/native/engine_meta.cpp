#include "engine_meta.h"

#include "error.h"
#include "json.h"

namespace trt_rt {
namespace {

constexpr std::int64_t kVersion = 1;
constexpr const char* kWhat = "The description of an engine in the program (the operator's argument `meta`)";

std::vector<MetaTensor> read_tensors(const Json& list) {
  std::vector<MetaTensor> tensors;
  for (const Json& item : list.list()) {
    MetaTensor tensor{item["name"].text(), item["dtype"].text(), {}, false};
    if (const Json* location = item.find("location")) tensor.is_host = location->text() == "host";
    for (const Json& dimension : item["shape"].list()) {
      if (dimension.kind() == Json::Kind::text)
        tensor.shape.push_back({-1, dimension.text()});
      else
        tensor.shape.push_back({dimension.integer(), ""});
    }
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

EngineMeta read_meta(const Json& json) {
  const std::int64_t version = json["version"].integer();
  if (version != kVersion)
    throw Error("it has version " + std::to_string(version) + ", and this library knows version " +
                std::to_string(kVersion) + ". Use the libtrt_rt_runtime.so of the trt_rt that made the program.");
  if (json.find("module") != nullptr)
    throw Error("it names a module of a Python process. Save the program with trt_rt.save, and package that.");
  EngineMeta meta{json["backend"].text(), json["sha256"].text(), read_tensors(json["inputs"]),
                  read_tensors(json["outputs"]), {}, false};
  if (const Json* aliases = json.find("aliased_io"))
    for (const auto& [output, input] : aliases->members()) meta.aliases.emplace_back(output, input.text());
  if (const Json* device = json.find("device")) meta.is_cpu_without_inputs = device->text() == "cpu";
  if (meta.sha256.size() != 64) throw Error("it has no SHA-256 of the plan.");
  return meta;
}

}  // namespace

EngineMeta EngineMeta::parse(std::string_view text) {
  const Json json = Json::parse(text, kWhat);
  try {
    return read_meta(json);
  } catch (const Error& error) {
    throw Error(std::string(kWhat) + " is not valid: " + error.what());
  }
}

std::string describe(const char* kind, const std::string& name, const EngineMeta& meta) {
  return std::string(kind) + " '" + name + "' of the engine " + meta.sha256.substr(0, 8);
}

}  // namespace trt_rt
