"""Tells afterwards how a call was served, from what the parts of an executor remember of it.

A call notes nothing for this. What it leaves behind is enough: the record of its shapes, the flags of its
slots, and the graph that was used last.
"""

from cpython.object cimport PyObject


cdef object describe_last_call(Executor executor):
    """What is known about the last call, for `Executor.last_call`; only within its gate.

    A dict of ``profile``; ``outputs``: "fresh", "pre-allocated" or "allocator"; and ``graphs``, which is None
    while graphs are off, and else what `_describe_graphs` returns.
    """
    cdef ShapeRecord record = executor.inputs.record
    if record is None and executor.graphs is not None:
        record = executor.graphs.last_record
    if record is None:
        return None
    if record.is_data_dependent:
        outputs = "allocator"
    else:
        outputs = "pre-allocated" if executor.outputs.policy == RING_OUTPUTS else "fresh"
    return {
        "profile": record.profile,
        "outputs": outputs,
        "graphs": None if executor.graphs is None else _describe_graphs(executor.graphs, record),
    }


cdef dict _describe_graphs(GraphPolicy graphs, ShapeRecord record):
    """Describe the graphs of an executor, and what keeps the last call's shapes from getting another.

    A dict of ``kept``, ``capacity`` and ``of_shapes``: numbers of graphs; ``may_capture``: False after too
    many captures that CUDA invalidated; ``written``: inputs that the engine writes into, which no graph can
    copy; ``is_in_callers_capture``: whether the caller captures its stream; ``in_place`` and ``copied``: the
    tensors that the graph used last reads and writes where callers have them, and those that it copies.
    """
    cdef Py_ssize_t index
    cdef EngineGraph graph, last = None
    cdef SlotTable slots = graphs.slots
    cdef list in_place = [], copied = []
    names = graphs.execution.names
    for graph in graphs.cache.graphs:
        if last is None or graph.last_used > last.last_used:
            last = graph
    for index in range(0 if last is None else last.count):
        (copied if last.addresses[index] == 0 else in_place).append(names[index])
    return {
        "kept": len(graphs.cache.graphs),
        "capacity": graphs.cache.capacity,
        "of_shapes": record.history.graph_count,
        "may_capture": not graphs.capture.attempts.are_over,
        "written": [names[index] for index in range(slots.input_count) if slots.at[index].is_written],
        "is_in_callers_capture": bool(graphs.stream.on_cuda and is_capturing(graphs.stream.handle)),
        "in_place": in_place,
        "copied": copied,
    }
