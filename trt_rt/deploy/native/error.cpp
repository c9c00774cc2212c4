#include "error.h"

namespace trt_rt {
namespace {

thread_local std::string last_message;

}  // namespace

void remember_error(const std::string& message) noexcept {
  try {
    last_message = message;
  } catch (...) {  // no memory for a message
    last_message.clear();
  }
}

const char* last_error() noexcept { return last_message.c_str(); }

}  // namespace trt_rt
