// Runs a TorchScript program with engines in it: ./torchscript app/program.ts
// Make app with: trt-rt package model.pt2 -o app --torchscript
#include <torch/script.h>

#include <iostream>

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: torchscript FILE\n";
    return 2;
  }
  try {
    torch::jit::Module program = torch::jit::load(argv[1]);
    const torch::NoGradGuard no_grad;
    const at::Tensor output = program.forward({torch::ones({4, 8})}).toTensor();
    std::cout << output.sizes() << " sum " << output.sum().item() << "\n";
  } catch (const std::exception& error) {
    std::cerr << "torchscript: " << error.what() << "\n";
    return 1;
  }
}
