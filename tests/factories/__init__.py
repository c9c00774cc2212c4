"""Plan factories: where tests get engines from, by kind.

A factory is a callable ``make(kind) -> dict | None``; None: this source cannot make that kind. The dict:

- ``plan``: bytes
- ``backend``: what runs it, as ``trt_rt.Engine.from_bytes`` takes it (a name, or a ``trt_rt.Backend``)
- ``device``: torch.device of the device tensors
- ``inputs``, ``outputs``: names, in the engine's order
- ``example``: ``example(n)`` gives a tuple of inputs of batch n (1 to 32 unless the kind says otherwise),
  with new random values
- ``expected``: ``expected(*inputs)`` gives the tuple of outputs
- ``weights``, if the engine can be refitted: the state dict of its weights, as they are

Kinds, float32 unless said; b is the batch. What ``tests.factories.networks`` defines is the specification:

==================== =========================================================================================
relu                 x[b, 7] -> relu(x) * 2 + 1
half                 the same in float16
two                  a, b [b, 3] -> a + b, b + 1
many                 x0..x3 [b, 64] -> relu of each
nonzero              x[b, 5] -> indices [-1, 2] int64, data-dependent
shape_tensor         x[4], s host int64 [1], 1 to 9 -> y[s], y[i] = x[i % 4]; in example(n) s is min(n, 9)
shape_tensor32       the same with s int32
streaming            x[b, 4] -> x + 1, 8 MiB of streamable weights
aliased              cache[8, 4], x[8, 4] -> cache + x, written into cache
profiles             x[b, 4] -> x + 1; profile 0 holds b 1 to 4, profile 1 holds b 5 to 32
empty                x[b, 4], b from 0 -> x + 1
scalar               x[] -> x + 1
static               x[3, 4] -> x + 1
no_inputs            -> [3, 4] of 0, 2, 4 ... 22
no_outputs           x[3, 4] ->
slow                 x[b, 4] -> x + 1, some milliseconds on a GPU
fails                x[b, 4] -> nothing: enqueue returns False
fails_if_negative    x[b, 4] -> x + 1; enqueue returns False if x[0, 0] < 0
huge                 x[1], s host int64 [2], each 1 to 2**31 - 1 -> y[s0, s1], all x
names                two inputs [b, 4], two outputs a - b, b - a; names with every kind of character
identity_<dtype>     x[b, 6] -> x; float32, float16, bfloat16, int8, uint8, int32, int64, bool, float8_e4m3fn
==================== =========================================================================================

``tests.factories.selection`` says which factories a run of the tests uses.
"""
