// One input of a packaged program: what it must be, so that a call can be refused or its tensor copied.
//
// What AOTInductor compiles reads an input's memory as the example's was, whatever the caller's is.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/SmallVector.h>

#include <cstdint>
#include <limits>
#include <sstream>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace trt_rt {

// PyTorch's dtypes by the names that Python has for them.
inline const std::unordered_map<std::string, at::ScalarType>& dtypes() {
  static const std::unordered_map<std::string, at::ScalarType> all = {
      {"bfloat16", at::kBFloat16},
      {"bool", at::kBool},
      {"complex128", at::kComplexDouble},
      {"complex64", at::kComplexFloat},
      {"float16", at::kHalf},
      {"float32", at::kFloat},
      {"float64", at::kDouble},
      {"float8_e4m3fn", at::kFloat8_e4m3fn},
      {"float8_e5m2", at::kFloat8_e5m2},
      {"int16", at::kShort},
      {"int32", at::kInt},
      {"int64", at::kLong},
      {"int8", at::kChar},
      {"uint16", at::kUInt16},
      {"uint32", at::kUInt32},
      {"uint64", at::kUInt64},
      {"uint8", at::kByte},
  };
  return all;
}

// The sizes of a call's symbols, -1 for one that no input has had yet.
using Symbols = c10::SmallVector<std::int64_t, 8>;

class ProgramInput {
 public:
  // `line` is what trt_rt/deploy/input_description.py writes: name, dtype, device, sizes and order of dimensions,
  // with spaces between. `symbols` gets those that are new.
  ProgramInput(const std::string& line, std::vector<std::string>& symbols) {
    std::istringstream fields(line);
    std::string dtype, device, sizes, order;
    fields >> name_ >> dtype >> device >> sizes >> order;
    const auto found = dtypes().find(dtype);
    if (!fields || found == dtypes().end())
      throw std::runtime_error("The package describes an input as '" + line +
                               "', which trt_rt/program_input.h does not know. Make the package again with the trt_rt "
                               "whose headers this program has.");
    dtype_ = found->second;
    is_on_cpu_ = device == "cpu";
    for (const std::string& size : split(sizes)) sizes_.push_back(read_size(size, symbols));
    for (const std::string& dimension : split(order)) order_.push_back(std::stoll(dimension));
  }

  // Returns the tensor, or a copy that lies in memory as the program expects. Raises std::runtime_error if the program
  // does not take it.
  at::Tensor checked(at::Tensor given, at::Device program_device, Symbols& symbols) const {
    if (!given.defined()) refuse("is an undefined tensor.");
    if (given.layout() != at::kStrided) refuse("must be a dense tensor. Convert it with .to_dense() before the call.");
    if (given.scalar_type() != dtype_)
      refuse("is " + name_of(dtype_) + ", and the tensor given is " + name_of(given.scalar_type()) +
             ". Convert it with .to() before the call.");
    const at::Device device = is_on_cpu_ ? at::Device(at::kCPU) : program_device;
    if (device.is_cpu() ? !given.is_cpu() : given.device() != device)
      refuse("must be on " + device.str() + ", and the tensor given is on " + given.device().str() +
             ". Move it with .to() before the call.");
    check_sizes(given, symbols);
    if (given.is_conj()) given = given.resolve_conj();
    if (given.is_neg()) given = given.resolve_neg();
    if (lies_as_expected(given)) return given;
    return laid_out(given);
  }

 private:
  struct Size {
    std::int64_t smallest, largest;
    int symbol;  // -1 for none
  };

  static std::vector<std::string> split(const std::string& list) {
    std::vector<std::string> parts;
    std::istringstream stream(list == "-" ? "" : list);
    for (std::string part; std::getline(stream, part, ',');) parts.push_back(part);
    return parts;
  }

  // "8", or "1:32:s0" with an empty largest size if there is none and an empty symbol for an expression.
  static Size read_size(const std::string& text, std::vector<std::string>& symbols) {
    const auto first = text.find(':'), second = text.rfind(':');
    if (first == std::string::npos) return {std::stoll(text), std::stoll(text), -1};
    const std::string largest = text.substr(first + 1, second - first - 1), symbol = text.substr(second + 1);
    Size size{std::stoll(text), largest.empty() ? std::numeric_limits<std::int64_t>::max() : std::stoll(largest), -1};
    if (symbol.empty()) return size;
    std::size_t place = 0;
    while (place < symbols.size() && symbols[place] != symbol) ++place;
    if (place == symbols.size()) symbols.push_back(symbol);
    size.symbol = static_cast<int>(place);
    return size;
  }

  static std::string name_of(at::ScalarType dtype) {
    for (const auto& [name, each] : dtypes())
      if (each == dtype) return name;
    return c10::toString(dtype);
  }

  template <class Sizes>
  static std::string text(const Sizes& sizes) {
    std::string text = "[";
    for (const std::int64_t size : sizes) text += (text.size() > 1 ? ", " : "") + std::to_string(size);
    return text + "]";
  }

  [[noreturn]] void refuse(const std::string& why) const {
    throw std::runtime_error("The program's input '" + name_ + "' " + why);
  }

  void check_sizes(const at::Tensor& given, Symbols& symbols) const {
    const at::IntArrayRef sizes = given.sizes();
    if (sizes.size() != sizes_.size())
      refuse("has " + std::to_string(sizes_.size()) + " dimensions, and the tensor given has " +
             std::to_string(sizes.size()) + ", in shape " + text(sizes) + ".");
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      const Size& size = sizes_[i];
      if (sizes[i] < size.smallest || sizes[i] > size.largest) refuse_size(sizes, i);
      if (size.symbol < 0) continue;
      std::int64_t& known = symbols[size.symbol];
      if (known >= 0 && known != sizes[i])
        refuse("has shape " + text(sizes) + ", and the size " + std::to_string(sizes[i]) + " in dimension " +
               std::to_string(i) + " must be the " + std::to_string(known) + " of another dimension or input.");
      known = sizes[i];
    }
  }

  [[noreturn]] void refuse_size(at::IntArrayRef sizes, std::size_t dimension) const {
    const Size& wanted = sizes_[dimension];
    if (wanted.smallest == wanted.largest)
      refuse("has size " + std::to_string(wanted.smallest) + " in dimension " + std::to_string(dimension) +
             ", and the tensor given has shape " + text(sizes) + ".");
    std::vector<std::int64_t> smallest;
    std::string largest;
    for (const Size& size : sizes_) {
      smallest.push_back(size.smallest);
      const bool has_end = size.largest != std::numeric_limits<std::int64_t>::max();
      largest += (largest.empty() ? "" : ", ") + (has_end ? std::to_string(size.largest) : "any");
    }
    refuse("has shape " + text(sizes) + "; allowed: " + text(smallest) + " to [" + largest + "].");
  }

  // Whether the elements lie without gaps, in the order of dimensions that the program was compiled for.
  bool lies_as_expected(const at::Tensor& given) const {
    if (given.numel() == 0) return true;
    std::int64_t stride = 1;
    for (auto place = order_.rbegin(); place != order_.rend(); ++place) {
      const std::int64_t size = given.size(*place);
      if (size != 1 && given.stride(*place) != stride) return false;
      stride *= size;
    }
    return true;
  }

  at::Tensor laid_out(const at::Tensor& given) const {
    std::vector<std::int64_t> inverse(order_.size());
    for (std::size_t i = 0; i < order_.size(); ++i) inverse[order_[i]] = static_cast<std::int64_t>(i);
    return given.permute(order_).contiguous().permute(inverse);
  }

  std::string name_;
  at::ScalarType dtype_;
  bool is_on_cpu_;
  std::vector<Size> sizes_;
  std::vector<std::int64_t> order_;  // of dimensions, from the largest stride to the smallest
};

}  // namespace trt_rt
