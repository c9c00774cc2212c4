/* The C interface of libtrt_rt_runtime.so.
 *
 * Loading the library registers PyTorch's operator trt_rt::execute_engine, and that is all that most programs need.
 * Linking it by CMake (find_package(trt_rt), target trt_rt::runtime) or pkg-config keeps it although a program may
 * name none of its functions. dlopen, LD_PRELOAD and torch.ops.load_library do as well.
 */
#ifndef TRT_RT_RUNTIME_H
#define TRT_RT_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of trt_rt, as "0.1.0". */
const char* trt_rt_version(void);

/* The message of the last error of this thread, of the operator or of a function below; "" if there was none.
 *
 * A program that AOTInductor compiled raises an exception without the text of the operator's. This is that text. Valid
 * until the thread's next error.
 */
const char* trt_rt_last_error(void);

/* Forgets the last error of this thread. */
void trt_rt_clear_error(void);

/* Whether engines write their outputs into the same memory at every call, which saves an allocation for each. Off at
 * first. While it is on, a call overwrites the results of the last call with the same stream, program and shapes. Applies
 * to the whole process, and not to outputs whose size depends on data.
 */
void trt_rt_pre_allocated_outputs(int enabled);

/* A file of constants, mapped into memory: plans, and the weights of PyTorch's operators. `trt-rt package` writes it. */
typedef struct trt_rt_constants trt_rt_constants;

/* One constant: a contiguous tensor. Everything that it points to is valid until the file is closed. */
typedef struct trt_rt_constant {
  const char* name;
  const char* dtype;    /* PyTorch's name, as "float32" */
  int32_t rank;         /* number of dimensions */
  const int64_t* sizes; /* of the dimensions, in elements */
  const void* data;     /* mapped: pages are read when they are used first. Not to be written to. */
  int32_t argument;     /* its place among the first arguments of the compiled program, which stay on the CPU; or -1 */
} trt_rt_constant;

/* Maps a file. NULL after an error, which trt_rt_last_error() tells. Checks that each constant lies in the file. */
trt_rt_constants* trt_rt_constants_open(const char* path);
size_t trt_rt_constants_count(const trt_rt_constants* constants);
/* The constant of an index below the count. */
trt_rt_constant trt_rt_constants_get(const trt_rt_constants* constants, size_t index);
/* Unmaps the file. Engines that were loaded from it stay; nothing else may use its constants any more. */
void trt_rt_constants_close(trt_rt_constants* constants);

#ifdef __cplusplus
}
#endif

#endif
