// The exception of the library, and the last message of each thread.
#pragma once

#include <stdexcept>
#include <string>

namespace trt_rt {

// What a caller did, or what the machine lacks, in full sentences. PyTorch passes it on as a std::runtime_error.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// AOTInductor's programs replace the text of an exception, so each thread's last one is kept for
// trt_rt_last_error().
void remember_error(const std::string& message) noexcept;
const char* last_error() noexcept;

}  // namespace trt_rt
