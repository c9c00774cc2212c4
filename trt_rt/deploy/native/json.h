// JSON (RFC 8259) as values. Text from a file: its depth and its numbers are checked.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace trt_rt {

class Json {
 public:
  enum class Kind { null, boolean, integer, real, text, list, object };

  // Raises Error if `text` is not one JSON value; `what` names it in the message.
  static Json parse(std::string_view text, const std::string& what);

  Kind kind() const { return kind_; }
  bool is_null() const { return kind_ == Kind::null; }

  // Each of these raises Error if the value is of another kind.
  bool boolean() const;
  std::int64_t integer() const;
  double number() const;  // an integer or a real
  const std::string& text() const;
  const std::vector<Json>& list() const;
  const Json& operator[](std::string_view key) const;  // raises Error if the key is not there

  // The value of a key, or nullptr.
  const Json* find(std::string_view key) const;
  const std::vector<std::pair<std::string, Json>>& members() const;

 private:
  friend class JsonReader;

  const Json& expect(Kind kind) const;

  Kind kind_ = Kind::null;
  std::int64_t integer_ = 0;
  double real_ = 0;
  std::string text_;
  std::vector<Json> list_;
  std::vector<std::pair<std::string, Json>> members_;
};

}  // namespace trt_rt
