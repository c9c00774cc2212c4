#include "reference_network.h"

#include <algorithm>

#include "../error.h"

namespace trt_rt::reference {
namespace {

Sizes broadcast(const Sizes& a, const Sizes& b) {
  Sizes result(std::max(a.size(), b.size()));
  for (std::size_t i = 0; i < result.size(); ++i) {
    const std::int64_t x = i < a.size() ? a[a.size() - 1 - i] : 1, y = i < b.size() ? b[b.size() - 1 - i] : 1;
    if (x != y && x != 1 && y != 1) throw Error("Two tensors of the network have shapes that cannot be broadcast.");
    result[result.size() - 1 - i] = x == 1 ? y : x;
  }
  return result;
}

// Where the element of `operand` lies that goes with element `index` of a result of `shape`.
std::int64_t place(std::int64_t index, const Sizes& shape, const Sizes& operand) {
  std::int64_t place = 0, stride = 1;
  for (std::size_t i = 0; i < shape.size(); ++i) {
    const std::int64_t size = shape[shape.size() - 1 - i];
    const std::int64_t own = i < operand.size() ? operand[operand.size() - 1 - i] : 1;
    if (own != 1) place += index % size * stride;
    stride *= own;
    index /= size;
  }
  return place;
}

float apply(Operation operation, float a, float b) {
  switch (operation) {
    case Operation::add: return a + b;
    case Operation::div: return a / b;
    case Operation::mul: return a * b;
    case Operation::neg: return -a;
    case Operation::relu: return a > 0 ? a : 0;
    case Operation::sub: return a - b;
    default: return a;
  }
}

Value nonzero(const Value& input) {
  Value result;
  for (std::int64_t i = 0; i < input.count(); ++i) {
    if (input.numbers[i] == 0) continue;
    std::int64_t rest = i;
    result.indices.resize(result.indices.size() + input.shape.size());
    for (std::size_t d = 0; d < input.shape.size(); ++d) {
      const std::size_t dimension = input.shape.size() - 1 - d;
      result.indices[result.indices.size() - 1 - d] = rest % input.shape[dimension];
      rest /= input.shape[dimension];
    }
  }
  const auto rank = static_cast<std::int64_t>(input.shape.size());
  result.shape = {rank == 0 ? 0 : static_cast<std::int64_t>(result.indices.size()) / rank, rank};
  return result;
}

Value compute(const Node& node, const std::vector<Value>& values) {
  Value result;
  if (node.operation == Operation::nothing) return result;
  Value operands[2];
  for (std::size_t i = 0; i < node.arguments.size(); ++i) {
    const Argument& argument = node.arguments[i];
    operands[i] = argument.value >= 0 ? values[argument.value] : Value{{}, {argument.number}, {}};
    if (!operands[i].indices.empty()) throw Error("The C++ reference engine does not compute with int64.");
  }
  if (node.operation == Operation::nonzero) return nonzero(operands[0]);
  if (node.arguments.size() == 1) operands[1].numbers = {0};
  result.shape = broadcast(operands[0].shape, operands[1].shape);
  result.numbers.resize(result.count());
  for (std::int64_t i = 0; i < result.count(); ++i)
    result.numbers[i] = apply(node.operation, operands[0].numbers[place(i, result.shape, operands[0].shape)],
                              operands[1].numbers[place(i, result.shape, operands[1].shape)]);
  return result;
}

}  // namespace

std::int64_t Value::count() const {
  std::int64_t count = 1;
  for (const std::int64_t size : shape) count *= size;
  return count;
}

std::vector<Value> evaluate(const Plan& plan, std::vector<Value> inputs) {
  std::vector<Value> values = std::move(inputs);
  for (const Weight& weight : plan.weights) values.push_back({weight.shape, weight.values, {}});
  for (const Node& node : plan.nodes) values.push_back(compute(node, values));
  std::vector<Value> outputs;
  for (const int result : plan.results) outputs.push_back(values[result]);
  return outputs;
}

std::vector<Sizes> output_shapes(const Plan& plan, const std::vector<Sizes>& inputs) {
  std::vector<Sizes> values = inputs;
  for (const Weight& weight : plan.weights) values.push_back(weight.shape);
  for (const Node& node : plan.nodes) {
    Sizes shape;
    for (const Argument& argument : node.arguments)
      if (argument.value >= 0) shape = broadcast(shape, values[argument.value]);
    if (node.operation == Operation::nonzero) shape = {-1, static_cast<std::int64_t>(shape.size())};
    values.push_back(shape);
  }
  std::vector<Sizes> outputs;
  for (const int result : plan.results) outputs.push_back(values[result]);
  return outputs;
}

}  // namespace trt_rt::reference
