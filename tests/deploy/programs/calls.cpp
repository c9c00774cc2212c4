// What the tests do in C++ with a packaged program: calls FOLDER COMMAND [NUMBER].
#include <malloc.h>
#include <time.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <trt_rt/program.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <thread>

namespace {

// The time that this thread has computed, in microseconds: others on the same processor do not count.
double thread_time() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return time.tv_sec * 1e6 + time.tv_nsec * 1e-3;
}

long resident_kilobytes() {
  long pages = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> pages >> resident;
  return resident * 4;
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
  malloc_trim(0);
  const long before = resident_kilobytes();
  const double time = microseconds(program, input, calls);
  malloc_trim(0);
  std::printf("{\"microseconds\": %.3f, \"grown_kilobytes\": %ld}\n", time, resident_kilobytes() - before);
  return 0;
}

// Threads with inputs of their own sizes: each must get its own results. More threads than an engine has contexts.
int call_from_threads(const std::string& folder, int threads) {
  trt_rt::Program program(folder, threads);
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

// One call with an input of this dtype and shape; prints the message of its failure.
int call_wrongly(trt_rt::Program& program, const std::string& command) {
  const at::Tensor good = at::ones({4, 8});
  try {
    if (command == "wrong-shape") program({at::ones({4, 9})});
    if (command == "outside-profile") program({at::ones({4000, 8})});
    if (command == "wrong-dtype") program({at::ones({4, 8}, at::kHalf)});
    std::puts("no error");
    return 3;
  } catch (const std::exception& error) {
    std::puts(error.what());
  }
  return program({good})[0].size(0) == 4 ? 0 : 4;  // the next good call works
}

int run(const std::string& folder, const std::string& command, int number) {
  if (command == "threads") return call_from_threads(folder, number);
  if (command == "unload") return unload_while_it_runs(folder);
  trt_rt::Program program(folder);
  if (command == "time") return time_calls(program, number);
  if (command.rfind("wrong", 0) == 0 || command == "outside-profile") return call_wrongly(program, command);
  if (command == "memory") {  // mapped pages count when they are read, and only then
    std::printf("{\"private_kilobytes\": %ld}\n", static_cast<long>(mallinfo2().uordblks / 1024));
    return 0;
  }
  std::cout << program({at::ones({4, 8})})[0] << "\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  try {
    return run(argv[1], argv[2], argc > 3 ? std::atoi(argv[3]) : 0);
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
