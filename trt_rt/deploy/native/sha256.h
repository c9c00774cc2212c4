// SHA-256 (FIPS 180-4), with the processor's instructions for it where it has them.
#pragma once

#include <cstddef>
#include <string>

namespace trt_rt {

// The digest in hexadecimal.
std::string sha256(const void* data, std::size_t size);

}  // namespace trt_rt
