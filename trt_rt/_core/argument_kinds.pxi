"""Whether a call's arguments are of the same kinds as another's, asked without a Python object."""

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject, PyTypeObject
from cpython.tuple cimport PyTuple_GET_SIZE

from trt_rt._core.dlpack cimport (
    MAX_DIMS,
    DLExchangeAPI,
    DLTensor,
    pack_device,
    pack_dtype,
    read_plain_tensor,
    torch_exchange_api,
)
from trt_rt._core.python_objects cimport items
from trt_rt._core.tensor_layout cimport TensorLayout, copy_shape, is_contiguous, same_kind, same_shape

import torch


@cython.final
cdef class ArgumentKinds:
    """Dtypes, devices and shapes of positional arguments that are plain, contiguous tensors.

    Parameters
    ----------
    arguments : tuple
        Of the call that others are compared with.

    Attributes
    ----------
    known : bool
        False if an argument is anything else: then no call fits.
    """

    cdef DLExchangeAPI* api
    cdef PyTypeObject* tensor_type
    cdef TensorLayout* layouts
    cdef Py_ssize_t count
    cdef readonly bint known

    def __cinit__(self, tuple arguments not None):
        cdef Py_ssize_t index
        cdef DLTensor tensor
        self.api = torch_exchange_api()
        self.tensor_type = <PyTypeObject*> torch.Tensor
        self.count = len(arguments)
        self.layouts = <TensorLayout*> PyMem_Calloc(max(self.count, 1), sizeof(TensorLayout))
        if self.layouts == NULL:
            raise MemoryError()
        for index in range(self.count):
            if not self._read(items(arguments)[index], &tensor):
                return
            self.layouts[index].dtype = pack_dtype(tensor.dtype)
            self.layouts[index].device = pack_device(tensor.device.device_type, tensor.device.device_id)
            copy_shape(&self.layouts[index], &tensor)
        self.known = True

    def __dealloc__(self):
        PyMem_Free(self.layouts)

    def fit(self, tuple arguments not None):
        """Whether `arguments` are as many, and each is of the kind of the one in its place.

        Parameters
        ----------
        arguments : tuple

        Returns
        -------
        bool
            False also of a tensor that would do but is not contiguous, or of a subclass.
        """
        cdef Py_ssize_t index
        cdef DLTensor tensor
        if not self.known or PyTuple_GET_SIZE(arguments) != self.count:
            return False
        for index in range(self.count):
            if (
                not self._read(items(arguments)[index], &tensor)
                or not same_kind(&self.layouts[index], &tensor)
                or not same_shape(&self.layouts[index], &tensor)
            ):
                return False
        return True

    cdef bint _read(self, PyObject* value, DLTensor* tensor) noexcept:
        return (
            read_plain_tensor(self.api, self.tensor_type, value, tensor)
            and tensor.ndim <= MAX_DIMS
            and is_contiguous(tensor)
        )
