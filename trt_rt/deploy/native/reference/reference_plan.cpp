#include "reference_plan.h"

#include <cstring>

#include "../error.h"
#include "../json.h"

namespace trt_rt::reference {
namespace {

constexpr std::size_t kPrefix = 64;
constexpr std::uint32_t kFormat = 3;

struct Name {
  const char* operation;
  Operation kind;
};

// Nodes without a result are assertions about sizes, which trt_rt has checked when it built the plan.
constexpr Name kOperations[] = {
    {"aten.add.Tensor", Operation::add},     {"aten.clone.default", Operation::clone},
    {"aten.div.Tensor", Operation::div},     {"aten.mul.Tensor", Operation::mul},
    {"aten.neg.default", Operation::neg},    {"aten.nonzero.default", Operation::nonzero},
    {"aten.relu.default", Operation::relu},  {"aten.sub.Tensor", Operation::sub},
};

Sizes read_sizes(const Json& json) {
  Sizes sizes;
  for (const Json& size : json.list()) sizes.push_back(size.integer());
  if (sizes.size() > static_cast<std::size_t>(tensorrt::kMostDims)) throw Error("A tensor has more than 8 dimensions.");
  return sizes;
}

PlanTensor read_tensor(const Json& json) {
  const std::string& dtype = json["dtype"].text();
  if (dtype != "float32" && dtype != "int64")
    throw Error("The C++ reference engine has float32 and int64 tensors, and this plan has " + dtype + ".");
  const Json* location = json.find("location");
  const Json* alias = json.find("aliased_input");
  if ((location != nullptr && location->text() != "device") || (alias != nullptr && !alias->is_null()))
    throw Error("The C++ reference engine has no shape tensors and no aliased outputs.");
  return {json["name"].text(), dtype == "int64" ? tensorrt::DataType::kINT64 : tensorrt::DataType::kFLOAT,
          read_sizes(json["shape"]), {}, {}};
}

Node read_node(const Json& json, std::size_t values) {
  Node node{Operation::nothing, {}};
  if (json["result"].is_null()) return node;
  const std::string& name = json["operator"].text();
  for (const Name& each : kOperations)
    if (name == each.operation) node.operation = each.kind;
  if (node.operation == Operation::nothing || !json["kwargs"].members().empty())
    throw Error("The C++ reference engine runs add, clone, div, mul, neg, nonzero, relu and sub of float32 tensors, "
                "and this plan has " + name + ". It is for tests only. Build the plan with TensorRT.");
  for (const Json& item : json["args"].list()) {
    Argument argument;
    if (item.kind() == Json::Kind::object)
      argument.value = static_cast<int>(item["value"].integer());
    else
      argument.number = static_cast<float>(item.number());
    if (argument.value >= static_cast<int>(values) || (item.kind() == Json::Kind::object && argument.value < 0))
      throw Error("A node of the plan takes a value that is not there.");
    node.arguments.push_back(argument);
  }
  const bool is_binary = node.operation == Operation::add || node.operation == Operation::div ||
                         node.operation == Operation::mul || node.operation == Operation::sub;
  if (node.arguments.size() != (is_binary ? 2U : 1U)) throw Error("A node of the plan has the wrong arguments.");
  return node;
}

void read_weights(Plan& plan, const Json& list, const std::uint8_t* data, std::size_t size) {
  for (const Json& item : list.list()) {
    if (item["dtype"].text() != "float32") throw Error("The C++ reference engine has weights of float32 only.");
    Weight weight{read_sizes(item["shape"]), {}};
    std::size_t count = 1;
    for (const std::int64_t length : weight.shape)
      if (length < 0 || __builtin_mul_overflow(count, static_cast<std::size_t>(length), &count))
        throw Error("A weight of the plan has an impossible shape.");
    const auto offset = static_cast<std::size_t>(item["offset"].integer());
    if (offset > size || count > (size - offset) / sizeof(float)) throw Error("The plan lacks a weight.");
    weight.values.resize(count);
    if (count != 0) std::memcpy(weight.values.data(), data + offset, count * sizeof(float));
    plan.weights.push_back(std::move(weight));
  }
}

void read_profiles(Plan& plan, const Json& list) {
  plan.profiles = static_cast<int>(list.list().size());
  for (const Json& profile : list.list()) {
    const auto& shapes = profile["shapes"].list();
    if (shapes.size() != plan.inputs.size()) throw Error("A profile of the plan does not fit its inputs.");
    for (std::size_t i = 0; i < shapes.size(); ++i) {
      plan.inputs[i].smallest.push_back(read_sizes(shapes[i].list().at(0)));
      plan.inputs[i].largest.push_back(read_sizes(shapes[i].list().at(2)));
    }
  }
}

}  // namespace

Plan Plan::read(const std::uint8_t* data, std::size_t size) {
  std::uint32_t format = 0;
  std::uint64_t header = 0;
  if (size < kPrefix || std::memcmp(data, "TRTRTREF", 8) != 0)
    throw Error("This is no plan of trt_rt's reference backend. The C++ reference engine, which is not TensorRT, "
                "runs no other.");
  std::memcpy(&format, data + 8, sizeof(format));
  std::memcpy(&header, data + 16, sizeof(header));
  if (format != kFormat)
    throw Error("The plan has format " + std::to_string(format) + ", and this library knows format " +
                std::to_string(kFormat) + ". Build it again with this trt_rt.");
  if (header > size - kPrefix) throw Error("The plan is truncated.");
  const Json json =
      Json::parse({reinterpret_cast<const char*>(data) + kPrefix, header}, "The header of the reference plan");
  if (json["device"].text() != "cpu")
    throw Error("The plan is for a CUDA device, and the C++ reference engine runs on the CPU only.");
  Plan plan;
  for (const Json& item : json["inputs"].list()) plan.inputs.push_back(read_tensor(item));
  for (const Json& item : json["outputs"].list()) plan.outputs.push_back(read_tensor(item));
  read_profiles(plan, json["profiles"]);
  read_weights(plan, json["weights"], data + kPrefix + header, size - kPrefix - header);
  const Json& graph = json["graph"];
  std::size_t values = plan.inputs.size() + plan.weights.size();
  for (const Json& item : graph["nodes"].list()) plan.nodes.push_back(read_node(item, values++));
  for (const Json& item : graph["outputs"].list()) plan.results.push_back(static_cast<int>(item.integer()));
  if (plan.results.size() != plan.outputs.size()) throw Error("The plan does not give all of its outputs.");
  for (const int result : plan.results)
    if (result < 0 || result >= static_cast<int>(values)) throw Error("The plan has an output that is no value.");
  return plan;
}

}  // namespace trt_rt::reference
