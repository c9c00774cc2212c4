# cython: boundscheck=False, wraparound=False
"""A call, from the module to TensorRT.

This is one extension module, cut into files by concept, so that calls between its classes are direct C calls.
The order is that of use: each file needs only what stands above it. The one exception is `Executor`, which
``bound_call.pxi`` declares in advance, because a bound call knows its executor.
"""

# The caller's stream, and the CUDA driver.
include "stream_order.pxi"
include "call_stream.pxi"

# What a call is compared with, and the consequences of its shapes.
include "tensor_state.pxi"
include "tensor_state_search.pxi"
include "overwritten_tensors.pxi"
include "io_slots.pxi"
include "address_history.pxi"
include "output_buffers.pxi"
include "shape_record.pxi"
include "new_tensor.pxi"

# The steps of a call.
include "execution_context.pxi"
include "input_binding.pxi"
include "callers_outputs.pxi"
include "output_binding.pxi"

# Graphs: the mechanism, an engine's graphs, and the choice of one.
include "copy_kernel.pxi"
include "tensor_copies.pxi"
include "graph_executables.pxi"
include "captured_graph.pxi"
include "engine_capture.pxi"
include "graph_cache.pxi"
include "graph_policy.pxi"

# The objects that callers call.
include "bound_call.pxi"
include "executor.pxi"
include "last_call.pxi"
include "executor_pool.pxi"
include "tracing.pxi"
include "module_call.pxi"
include "function_call.pxi"

# Whole programs.
include "stream_copies.pxi"
include "stream_sequence.pxi"
include "program_input.pxi"
include "program_graph.pxi"
include "watched_tables.pxi"
include "program_state.pxi"
include "program_call.pxi"
