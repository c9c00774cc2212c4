#include "json.h"

#include <locale.h>

#include <cerrno>
#include <cmath>
#include <cstdlib>

#include "error.h"

namespace trt_rt {
namespace {

constexpr int kDeepest = 64;

const char* name_of(Json::Kind kind) {
  switch (kind) {
    case Json::Kind::null: return "null";
    case Json::Kind::boolean: return "a boolean";
    case Json::Kind::integer: return "an integer";
    case Json::Kind::real: return "a number";
    case Json::Kind::text: return "a string";
    case Json::Kind::list: return "a list";
    case Json::Kind::object: return "an object";
  }
  return "a value";
}

// Like strtod, but with a decimal point in programs whose locale has a comma, too.
double read_real(const char* digits, char** end) {
  static const locale_t plain = newlocale(LC_ALL_MASK, "C", nullptr);
  return strtod_l(digits, end, plain);
}

}  // namespace

class JsonReader {
 public:
  JsonReader(std::string_view text, const std::string& what) : text_(text), what_(what) {}

  Json read() {
    Json value = read_value(0);
    skip_space();
    if (at_ != text_.size()) fail("has text after its end");
    return value;
  }

 private:
  [[noreturn]] void fail(const std::string& why) const {
    throw Error(what_ + " is not valid JSON: it " + why + " at byte " + std::to_string(at_) + ".");
  }

  void skip_space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t' || text_[at_] == '\r'))
      ++at_;
  }

  char next() {
    skip_space();
    if (at_ == text_.size()) fail("ends too early");
    return text_[at_];
  }

  bool take(char character) {
    if (next() != character) return false;
    ++at_;
    return true;
  }

  bool take_word(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }

  Json read_value(int depth) {
    if (depth > kDeepest) fail("is nested too deeply");
    Json value;
    switch (next()) {
      case '{': read_object(value, depth); break;
      case '[': read_list(value, depth); break;
      case '"':
        value.kind_ = Json::Kind::text;
        value.text_ = read_text();
        break;
      default: read_word(value);
    }
    return value;
  }

  void read_word(Json& value) {
    if (take_word("null")) return;
    if (take_word("true")) {
      value.kind_ = Json::Kind::boolean;
      value.integer_ = 1;
    } else if (take_word("false")) {
      value.kind_ = Json::Kind::boolean;
    } else {
      read_number(value);
    }
  }

  void read_object(Json& value, int depth) {
    value.kind_ = Json::Kind::object;
    ++at_;
    if (take('}')) return;
    do {
      if (next() != '"') fail("lacks a key");
      std::string key = read_text();
      if (!take(':')) fail("lacks a colon");
      value.members_.emplace_back(std::move(key), read_value(depth + 1));
    } while (take(','));
    if (!take('}')) fail("lacks the end of an object");
  }

  void read_list(Json& value, int depth) {
    value.kind_ = Json::Kind::list;
    ++at_;
    if (take(']')) return;
    do {
      value.list_.push_back(read_value(depth + 1));
    } while (take(','));
    if (!take(']')) fail("lacks the end of a list");
  }

  void read_number(Json& value) {
    const std::size_t start = at_;
    bool is_real = false;
    while (at_ < text_.size()) {
      const char character = text_[at_];
      const bool marks_real = character == '.' || character == 'e' || character == 'E';
      if (!marks_real && character != '-' && character != '+' && (character < '0' || character > '9')) break;
      is_real |= marks_real;
      ++at_;
    }
    const std::string digits(text_.substr(start, at_ - start));
    char* end = nullptr;
    errno = 0;
    if (is_real) {
      value.kind_ = Json::Kind::real;
      value.real_ = read_real(digits.c_str(), &end);
    } else {
      value.kind_ = Json::Kind::integer;
      value.integer_ = std::strtoll(digits.c_str(), &end, 10);
    }
    if (digits.empty() || *end != '\0' || errno == ERANGE) {
      at_ = start;
      fail("has something that is no value, or too large a number,");
    }
  }

  std::string read_text() {
    std::string text;
    ++at_;
    while (true) {
      if (at_ == text_.size()) fail("ends within a string");
      const char character = text_[at_++];
      if (character == '"') return text;
      if (static_cast<unsigned char>(character) < 0x20) fail("has a control character in a string");
      if (character == '\\')
        read_escape(text);
      else
        text += character;
    }
  }

  void read_escape(std::string& text) {
    if (at_ == text_.size()) fail("ends within a string");
    switch (text_[at_++]) {
      case '"': text += '"'; break;
      case '\\': text += '\\'; break;
      case '/': text += '/'; break;
      case 'b': text += '\b'; break;
      case 'f': text += '\f'; break;
      case 'n': text += '\n'; break;
      case 'r': text += '\r'; break;
      case 't': text += '\t'; break;
      case 'u': append_utf8(text, read_code_point()); break;
      default: fail("has an unknown escape");
    }
  }

  std::uint32_t read_code_point() {
    const std::uint32_t first = read_hex();
    if (first < 0xD800 || first > 0xDFFF) return first;
    if (first > 0xDBFF || !take_word("\\u")) fail("has half a surrogate pair");
    const std::uint32_t second = read_hex();
    if (second < 0xDC00 || second > 0xDFFF) fail("has half a surrogate pair");
    return 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
  }

  std::uint32_t read_hex() {
    std::uint32_t value = 0;
    for (int i = 0; i < 4; ++i) {
      const char digit = at_ < text_.size() ? text_[at_++] : ' ';
      value <<= 4;
      if (digit >= '0' && digit <= '9') value += digit - '0';
      else if (digit >= 'a' && digit <= 'f') value += digit - 'a' + 10;
      else if (digit >= 'A' && digit <= 'F') value += digit - 'A' + 10;
      else fail("has a wrong \\u escape");
    }
    return value;
  }

  static void append_utf8(std::string& text, std::uint32_t code) {
    const auto tail = [&](int shift) { text += static_cast<char>(0x80 | ((code >> shift) & 0x3F)); };
    if (code < 0x80) {
      text += static_cast<char>(code);
    } else if (code < 0x800) {
      text += static_cast<char>(0xC0 | (code >> 6));
      tail(0);
    } else if (code < 0x10000) {
      text += static_cast<char>(0xE0 | (code >> 12));
      tail(6);
      tail(0);
    } else {
      text += static_cast<char>(0xF0 | (code >> 18));
      tail(12);
      tail(6);
      tail(0);
    }
  }

  std::string_view text_;
  const std::string& what_;
  std::size_t at_ = 0;
};

Json Json::parse(std::string_view text, const std::string& what) { return JsonReader(text, what).read(); }

const Json& Json::expect(Kind kind) const {
  if (kind_ != kind)
    throw Error(std::string("A JSON value is ") + name_of(kind_) + " where " + name_of(kind) + " belongs.");
  return *this;
}

bool Json::boolean() const { return expect(Kind::boolean).integer_ != 0; }
std::int64_t Json::integer() const { return expect(Kind::integer).integer_; }
double Json::number() const { return kind_ == Kind::real ? real_ : static_cast<double>(integer()); }
const std::string& Json::text() const { return expect(Kind::text).text_; }
const std::vector<Json>& Json::list() const { return expect(Kind::list).list_; }

const std::vector<std::pair<std::string, Json>>& Json::members() const { return expect(Kind::object).members_; }

const Json* Json::find(std::string_view key) const {
  for (const auto& [name, value] : members())
    if (name == key) return &value;
  return nullptr;
}

const Json& Json::operator[](std::string_view key) const {
  if (const Json* value = find(key)) return *value;
  throw Error("A JSON object lacks the key \"" + std::string(key) + "\".");
}

}  // namespace trt_rt
