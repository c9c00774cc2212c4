// What the tests do in C++ with a packaged program: calls FOLDER COMMAND [NUMBER OR LIBRARY].
#include <dlfcn.h>
#include <malloc.h>
#include <time.h>
#include <ATen/ops/_neg_view.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <c10/core/Allocator.h>
#include <trt_rt/program.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <future>
#include <iostream>
#include <thread>

namespace {

// The time that this thread has computed, in microseconds: others on the same processor do not count.
double thread_time() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return time.tv_sec * 1e6 + time.tv_nsec * 1e-3;
}

// What is allocated now. Linux's own numbers of a process lag behind by some hundred kilobytes on each processor.
long allocated_kilobytes() {
  const struct mallinfo2 info = mallinfo2();
  return static_cast<long>((info.uordblks + info.hblkhd) / 1024);
}

// The median of the microseconds of a call, over batches of calls.
double microseconds(trt_rt::Program& program, const at::Tensor& input, int calls) {
  std::vector<double> batches;
  constexpr int kBatch = 1000;
  for (int done = 0; done < calls; done += kBatch) {
    const double start = thread_time();
    for (int i = 0; i < kBatch; ++i) program({input});
    batches.push_back((thread_time() - start) / kBatch);
  }
  std::nth_element(batches.begin(), batches.begin() + batches.size() / 2, batches.end());
  return batches[batches.size() / 2];
}

// Many calls after a warm-up: prints the time of one, and by how much memory has grown.
int time_calls(trt_rt::Program& program, int calls) {
  const at::Tensor input = at::ones({4, 8}, program.device());
  microseconds(program, input, 20000);
  const long before = allocated_kilobytes();
  const double time = microseconds(program, input, calls);
  std::printf("{\"microseconds\": %.3f, \"grown_kilobytes\": %ld}\n", time, allocated_kilobytes() - before);
  return 0;
}

// Threads with inputs of their own sizes: each must get its own results. More threads than an engine has contexts.
int call_from_threads(const std::string& folder, int threads, std::size_t runners) {
  trt_rt::Program program(folder, runners);
  std::atomic<int> wrong{0};
  std::vector<std::thread> running;
  for (int i = 0; i < threads; ++i)
    running.emplace_back([&, i] {
      const at::Tensor input = at::full({1 + i % 8, 8}, static_cast<double>(i), at::TensorOptions(program.device()).dtype(at::kFloat));
      const at::Tensor expected = program({input})[0].clone();
      for (int call = 0; call < 300; ++call)
        if (!at::equal(program({input})[0], expected)) ++wrong;
      if (expected.size(0) != input.size(0)) ++wrong;
    });
  for (std::thread& thread : running) thread.join();
  std::printf("{\"wrong\": %d}\n", wrong.load());
  return wrong != 0;
}

// Threads run a program, and each frees it when it is the last one to use it, while the library is opened and closed.
int free_while_it_runs(const std::string& folder, const char* library) {
  std::atomic<int> wrong{0};
  const at::Tensor input = at::ones({4, 8});
  for (int round = 0; round < 10; ++round) {
    auto program = std::make_shared<trt_rt::Program>(folder, 4);
    const at::Tensor expected = (*program)({input})[0].clone();
    std::atomic<int> started{0};
    std::vector<std::thread> running;
    for (int i = 0; i < 4; ++i)
      running.emplace_back([&, program] {
        ++started;
        at::Tensor result;
        for (int call = 0; call < 50; ++call) result = (*program)({input})[0];
        if (!at::equal(result, expected)) ++wrong;
      });
    while (started < 4) std::this_thread::yield();
    program.reset();
    for (int i = 0; i < 50; ++i)
      if (void* handle = dlopen(library, RTLD_NOW)) dlclose(handle);
    for (std::thread& thread : running) thread.join();
  }
  std::printf("{\"wrong\": %d}\n", wrong.load());
  return wrong != 0;
}

// Stops the first allocation after `arm`, which an engine makes for its output, until `go_on`.
class Gate final : public c10::Allocator {
 public:
  void arm() { is_armed_ = true; }
  void wait_until_a_call_stands_here() { arrived_.get_future().wait(); }
  void go_on() { may_go_on_.set_value(); }

  at::DataPtr allocate(std::size_t size) override {
    if (is_armed_.exchange(false)) {
      arrived_.set_value();
      may_go_on_.get_future().wait();
    }
    return inner_->allocate(size);
  }
  void copy_data(void* target, const void* source, std::size_t size) const override {
    inner_->copy_data(target, source, size);
  }

 private:
  c10::Allocator* inner_ = c10::GetAllocator(c10::DeviceType::CPU);
  std::atomic<bool> is_armed_{false};
  std::promise<void> arrived_, may_go_on_;
};

// A thread is within a call, and a second one waits for its turn, while the program is destroyed and the library closed.
int destroy_during_a_call(const std::string& folder, const char* library) {
  void* handle = dlopen(library, RTLD_NOW);
  auto program = std::make_unique<trt_rt::Program>(folder);
  const at::Tensor input = at::ones({4, 8});
  const at::Tensor expected = (*program)({input})[0].clone();
  static Gate gate;
  c10::SetAllocator(c10::DeviceType::CPU, &gate, 1);
  at::Tensor results[2];
  gate.arm();
  std::thread first([&] { results[0] = (*program)({input})[0]; });
  gate.wait_until_a_call_stands_here();
  std::promise<void> has_begun;
  trt_rt::Program copy = *program;
  std::thread second([&, copy]() mutable {
    has_begun.set_value();
    results[1] = copy({input})[0];
  });
  has_begun.get_future().wait();
  program.reset();
  dlclose(handle);
  gate.go_on();
  first.join();
  second.join();
  const bool is_right = at::equal(results[0], expected) && at::equal(results[1], expected);
  std::puts(is_right ? "right" : "wrong");
  return !is_right;
}

// Pre-allocated outputs keep their memory while the shapes stay, and results of other shapes and settings their values.
int pre_allocate(const std::string& folder) {
  trt_rt::Program program(folder);
  const auto run = [&](std::int64_t rows, double value) { return program({at::full({rows, 8}, value)})[0]; };
  const auto is = [](const at::Tensor& tensor, double value) { return at::equal(tensor, at::full_like(tensor, value)); };
  std::string wrong;
  const auto expect = [&](bool condition, const char* what) {
    if (!condition) wrong += std::string(what) + "; ";
  };
  const at::Tensor before = run(4, 1);
  expect(run(4, 2).data_ptr() != before.data_ptr() && is(before, 3), "fresh memory at first");
  trt_rt_pre_allocated_outputs(1);
  const at::Tensor first = run(4, 1);
  const at::Tensor second = run(4, 2);
  expect(first.data_ptr() == second.data_ptr() && is(second, 5) && is(before, 3), "the same memory");
  const at::Tensor other = run(2, 3);
  expect(other.size(0) == 2 && is(other, 7) && is(second, 5), "memory of its own for other shapes");
  const at::Tensor again = run(4, 4);
  expect(again.size(0) == 4 && is(again, 9) && is(other, 7), "back to the first shapes");
  at::Tensor threads_own;
  std::thread([&] { threads_own = run(4, 5); }).join();
  expect(is(threads_own, 11) && is(again, 9), "memory of its own for another thread");
  trt_rt_pre_allocated_outputs(0);
  const at::Tensor after = run(4, 6);
  expect(after.data_ptr() != again.data_ptr() && is(after, 13) && is(again, 9), "fresh memory in the end");
  std::puts(wrong.empty() ? "right" : wrong.c_str());
  return !wrong.empty();
}

// Programs come and go while another one of the same plan runs: its engine and its results stay.
int unload_while_it_runs(const std::string& folder) {
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0}, calls{0};
  trt_rt::Program kept(folder);
  const at::Tensor input = at::ones({4, 8});
  const at::Tensor expected = kept({input})[0].clone();
  std::thread running([&] {
    while (!stop) {
      if (!at::equal(kept({input})[0], expected)) ++wrong;
      ++calls;
    }
  });
  std::vector<at::Tensor> results;
  for (int i = 0; i < 20; ++i) {
    trt_rt::Program passing(folder);
    results.push_back(passing({input})[0]);
  }
  stop = true;
  running.join();
  for (const at::Tensor& result : results)
    if (!at::equal(result, expected)) ++wrong;
  std::printf("{\"wrong\": %d, \"calls\": %d}\n", wrong.load(), calls.load());
  return wrong != 0;
}

// An input that requires gradients, in a thread that records them.
int call_with_gradients(trt_rt::Program& program) {
  const at::Tensor result = program({at::ones({4, 8}).requires_grad_()})[0];
  const bool is_right = at::equal(result, at::full_like(result, 3)) && !result.requires_grad();
  std::puts(is_right ? "right" : "wrong");
  return !is_right;
}

// Inputs that lie in memory in other ways, for the program relu(sin(x) * 2 + 1), whose sine AOTInductor has compiled.
int call_with_layouts(trt_rt::Program& program) {
  const at::Tensor many = at::randn({32, 16});
  const std::pair<const char*, at::Tensor> inputs[] = {
      {"as it is", many.slice(1, 0, 8).contiguous()},
      {"transposed", at::randn({8, 4}).t()},
      {"with gaps", many.slice(0, 0, 8, 2).slice(1, 0, 16, 2)},
      {"expanded", many.slice(0, 0, 1).slice(1, 0, 8).expand({4, 8})},
      {"negative", at::_neg_view(many.slice(1, 0, 8))},
  };
  for (const auto& [name, input] : inputs) {
    const at::Tensor expected = input.sin().mul(2).add(1).relu();
    if (!at::allclose(program({input})[0], expected, 1e-4, 1e-4)) {
      std::printf("wrong: %s\n", name);
      return 1;
    }
  }
  std::puts("right");
  return 0;
}

// Two inputs that share a size, and one of channels-last memory; prints the refusal of another size.
int check_inputs() {
  std::vector<std::string> names;
  const trt_rt::ProgramInput first("x float32 cpu 1:32:s0,8 0,1", names), second("y int64 cpu 1::s0 0", names),
      image("z float32 cpu 1:32:s0,2,3,4 0,2,3,1", names), number("n float32 cpu - -", names);
  trt_rt::Symbols symbols(names.size(), -1);
  first.checked(at::ones({4, 8}), at::kCPU, symbols);
  const at::Tensor given = at::randn({4, 2, 3, 4});
  const at::Tensor found = image.checked(given, at::kCPU, symbols);
  if (!found.is_contiguous(at::MemoryFormat::ChannelsLast) || !at::equal(found, given)) return 1;
  if (!image.checked(found, at::kCPU, symbols).is_same(found)) return 2;
  if (!number.checked(at::ones({}), at::kCPU, symbols).defined()) return 3;
  const trt_rt::ProgramInput depth("d uint16 cpu 8 0", names);
  if (!depth.checked(at::empty({8}, at::kUInt16), at::kCPU, symbols).defined()) return 4;
  try {
    second.checked(at::ones({5}, at::kLong), at::kCPU, symbols);
  } catch (const std::exception& error) {
    std::puts(error.what());
  }
  return 0;
}

// One call with an input of this dtype and shape; prints the message of its failure.
int call_wrongly(trt_rt::Program& program, const std::string& command) {
  const at::Tensor good = at::ones({4, 8});
  try {
    if (command == "wrong-shape") program({at::ones({4, 9})});
    if (command == "outside-profile") program({at::ones({4000, 8})});
    if (command == "wrong-dtype") program({at::ones({4, 8}, at::kHalf)});
    if (command == "wrong-rank") program({at::ones({4, 8, 1})});
    if (command == "wrong-count") program({good, good});
    if (command == "wrong-count-none") program({});
    if (command == "wrong-device") program({at::ones({4, 8}, at::kMeta)});
    if (command == "wrong-undefined") program({at::Tensor()});
    if (command == "wrong-layout") program({at::ones({4, 8}).to_sparse()});
    std::puts("no error");
    return 3;
  } catch (const std::exception& error) {
    std::puts(error.what());
  }
  return program({good})[0].size(0) == 4 ? 0 : 4;  // the next good call works
}

int run(const std::string& folder, const std::string& command, const char* argument) {
  const int number = std::atoi(argument);
  if (command == "threads") return call_from_threads(folder, number, number);
  if (command == "threads-of-one-runner") return call_from_threads(folder, number, 1);
  if (command == "free") return free_while_it_runs(folder, argument);
  if (command == "destroy") return destroy_during_a_call(folder, argument);
  if (command == "pre-allocated") return pre_allocate(folder);
  if (command == "check-inputs") return check_inputs();
  if (command == "unload") return unload_while_it_runs(folder);
  trt_rt::Program program(folder);
  if (command == "layouts") return call_with_layouts(program);
  if (command == "gradients") return call_with_gradients(program);
  if (command == "time") return time_calls(program, number);
  if (command.rfind("wrong", 0) == 0 || command == "outside-profile") return call_wrongly(program, command);
  if (command == "memory") {  // mapped pages count when they are read, and only then
    std::printf("{\"private_kilobytes\": %ld}\n", allocated_kilobytes());
    return 0;
  }
  std::cout << program({at::ones({4, 8})})[0] << "\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  try {
    return run(argv[1], argv[2], argc > 3 ? argv[3] : "");
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
