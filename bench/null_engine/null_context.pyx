# cython: language_level=3, freethreading_compatible=True, embedsignature=True, annotation_typing=False
"""The null engine's execution context: TensorRT's interface with nothing behind it.

What is left of a call when this runs "the engine" is the cost of whoever calls. Every method counts
itself in a C integer, which costs one instruction.
"""

from cuda.bindings cimport cydriver
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

# One kernel that returns at once. Compute capability 7.5 is the oldest that CUDA 13 knows; the driver
# compiles the text for the device that it is loaded on.
cdef bytes EMPTY_KERNEL = b"""
.version 6.3
.target sm_75
.address_size 64
.visible .entry null_engine_kernel() { ret; }
"""

cdef dict _kernel_of_context = {}       # CUDA context -> kernel; kept while the process lives


cdef int _check(cydriver.CUresult result, str call) except -1:
    cdef const char *text = NULL
    if result == cydriver.CUDA_SUCCESS:
        return 0
    cydriver.cuGetErrorString(result, &text)
    raise RuntimeError(f"{call} failed: {text.decode() if text != NULL else 'unknown error'} ({<int>result})")


cdef size_t _empty_kernel() except 0:
    """The empty kernel, loaded into the calling thread's current CUDA context."""
    cdef cydriver.CUcontext context = NULL
    cdef cydriver.CUmodule module = NULL
    cdef cydriver.CUfunction function = NULL
    _check(cydriver.cuCtxGetCurrent(&context), "cuCtxGetCurrent")
    if context == NULL:
        raise RuntimeError("no CUDA context is current: use the device (torch.cuda.init()) before the engine")
    known = _kernel_of_context.get(<size_t>context)
    if known is not None:
        return known
    _check(cydriver.cuModuleLoadData(&module, <const char *>EMPTY_KERNEL), "cuModuleLoadData")
    _check(cydriver.cuModuleGetFunction(&function, module, b"null_engine_kernel"), "cuModuleGetFunction")
    _kernel_of_context[<size_t>context] = <size_t>function
    return <size_t>function


cdef void _stay_busy(long long nanoseconds) noexcept nogil:
    cdef timespec now
    cdef long long end
    clock_gettime(CLOCK_MONOTONIC, &now)
    end = now.tv_sec * 1000000000 + now.tv_nsec + nanoseconds
    while now.tv_sec * 1000000000 + now.tv_nsec < end:
        clock_gettime(CLOCK_MONOTONIC, &now)


cdef inline cydriver.CUresult _launch(cydriver.CUfunction kernel, cydriver.CUstream stream) noexcept nogil:
    if kernel == NULL:
        return cydriver.CUDA_SUCCESS
    return cydriver.cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, stream, NULL, NULL)


cdef class IExecutionContext:
    """One execution context: remembers shapes and addresses, and counts the calls of each method.

    Created by ``ICudaEngine.create_execution_context``.

    Attributes
    ----------
    refuse : bool
        While true, :meth:`execute_async_v3` does nothing and answers False, as TensorRT does on failure.
    held_us : float
        How long :meth:`execute_async_v3` of a busy engine keeps the GIL, in microseconds, before it is busy
        without it.
    calls : dict of str to int
        Calls since the last :meth:`reset_calls`, by method name; methods never called are left out.
    """

    cdef object __weakref__
    cdef readonly object engine
    cdef public bint refuse
    cdef public str name
    cdef cydriver.CUfunction _kernel    # NULL: an enqueue does nothing
    cdef dict _specs                    # the engine's I/O tensors by name
    cdef dict _shapes                   # input name -> tuple; an input without one has no entry
    cdef set _allowed                   # (name, shape) found to fit before: a look-up, as cheap as TensorRT's
    cdef dict _addresses
    cdef dict _allocators
    cdef int _profile
    cdef public double held_us
    cdef long long _busy_ns             # of an enqueue, without the GIL
    cdef long _executed, _shapes_set, _shapes_read, _addresses_set, _addresses_read, _inferred
    cdef long _allocators_set, _profiles_set

    def __init__(self, engine):
        self.engine = engine
        self.name = ""
        self.refuse = False
        self._specs = engine.specs
        self._shapes = {spec.name: spec.shape for spec in engine.inputs if -1 not in spec.shape}
        self._allowed = set()
        self._addresses = {}
        self._allocators = {}
        self._profile = 0
        self._busy_ns = <long long> (engine.busy_us * 1000)
        self._kernel = NULL
        if engine.launches_kernel:
            self._kernel = <cydriver.CUfunction>_empty_kernel()

    # -- the hot call

    def execute_async_v3(self, size_t stream_handle):
        """Do nothing, or launch one empty kernel on the stream; True, unless told to refuse."""
        cdef cydriver.CUresult result
        self._executed += 1
        if self.refuse:
            return False
        if self._busy_ns != 0:
            if self.held_us != 0:
                _stay_busy(<long long> (self.held_us * 1000))
            with nogil:
                _stay_busy(self._busy_ns)
                result = _launch(self._kernel, <cydriver.CUstream>stream_handle)
        else:
            result = _launch(self._kernel, <cydriver.CUstream>stream_handle)
        return result == cydriver.CUDA_SUCCESS

    # -- shapes: every output has the shape of one input

    def set_input_shape(self, str name, shape):
        """Set an input's shape; False (and a logged error) for a shape outside the profile."""
        self._shapes_set += 1
        cdef tuple wanted = tuple(shape)
        cdef tuple key = (name, wanted)
        if key not in self._allowed:
            if not self.engine.allows_shape(name, wanted):
                return False
            self._allowed.add(key)
        self._shapes[name] = wanted
        return True

    def get_tensor_shape(self, str name):
        """The tensor's present shape; -1 where it depends on an input shape that is not set."""
        self._shapes_read += 1
        spec = self._specs[name]
        return self._shapes.get(spec.shape_of, spec.shape)

    def infer_shapes(self):
        """Names of the inputs whose shape is still to be set."""
        self._inferred += 1
        return [spec.name for spec in self.engine.inputs if spec.name not in self._shapes]

    @property
    def all_binding_shapes_specified(self):
        return len(self._shapes) == len(self.engine.inputs)

    @property
    def all_shape_inputs_specified(self):
        return True

    # -- addresses

    def set_tensor_address(self, str name, size_t memory):
        """Remember the address; False for a name that the engine does not have."""
        self._addresses_set += 1
        if name not in self._specs:
            return False
        self._addresses[name] = memory
        return True

    def get_tensor_address(self, str name):
        """The address set last, or 0."""
        self._addresses_read += 1
        return self._addresses.get(name, 0)

    def set_output_allocator(self, str name, output_allocator):
        """Remember the allocator; it is never asked, since the shape of every output is known."""
        self._allocators_set += 1
        self._allocators[name] = output_allocator
        return True

    def get_output_allocator(self, str name):
        """The allocator set last, or None."""
        return self._allocators.get(name)

    # -- profiles

    @property
    def active_optimization_profile(self):
        return self._profile

    def set_optimization_profile_async(self, int profile_index, size_t stream_handle):
        """Choose the profile; False for one that the engine does not have."""
        self._profiles_set += 1
        if not 0 <= profile_index < self.engine.num_optimization_profiles:
            return False
        self._profile = profile_index
        return True

    # -- scratch memory, of which a null engine needs none

    def set_device_memory(self, size_t memory, size_t size):
        """Take the scratch memory, and leave it alone."""

    def update_device_memory_size_for_shapes(self):
        """Bytes of scratch memory that the present shapes need."""
        return 0

    # -- what the benches read

    @property
    def calls(self):
        counted = {
            "execute_async_v3": self._executed,
            "set_input_shape": self._shapes_set,
            "get_tensor_shape": self._shapes_read,
            "infer_shapes": self._inferred,
            "set_tensor_address": self._addresses_set,
            "get_tensor_address": self._addresses_read,
            "set_output_allocator": self._allocators_set,
            "set_optimization_profile_async": self._profiles_set,
        }
        return {method: count for method, count in counted.items() if count}

    def reset_calls(self):
        """Forget what was counted so far."""
        self._executed = self._shapes_set = self._shapes_read = self._inferred = 0
        self._addresses_set = self._addresses_read = self._allocators_set = self._profiles_set = 0
