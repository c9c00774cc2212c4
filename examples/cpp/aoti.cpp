// Runs a program that AOTInductor compiled, with engines in it: ./aoti app
// Make app with: trt-rt package model.pt2 -o app
#include <ATen/ops/ones.h>
#include <trt_rt/program.h>

#include <iostream>

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: aoti FOLDER\n";
    return 2;
  }
  try {
    trt_rt::Program program(argv[1]);
    const auto outputs = program({at::ones({4, 8}, program.device())});
    for (const at::Tensor& output : outputs) std::cout << output.sizes() << " sum " << output.sum().item() << "\n";
  } catch (const std::exception& error) {
    std::cerr << "aoti: " << error.what() << "\n";
    return 1;
  }
}
