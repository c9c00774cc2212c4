"""Functions that are called to their end, and the values and context managers that are built on them."""

cimport cython

import types

cdef int _ATTEMPTS = 3


def complete(function, /, *args, **kwargs):
    """Call a function until it has ended, also if an interrupt cuts it short, which is raised afterwards.

    Parameters
    ----------
    function : callable
        It is called again after an interrupt, three times at most, so a second call must do no harm.

    Returns
    -------
    object
        What the function returns.

    Raises
    ------
    BaseException
        The first that the function has raised.
    """
    cdef object first = None, result = None
    cdef int _attempt
    for _attempt in range(_ATTEMPTS):
        try:
            result = function(*args, **kwargs)
            break
        except BaseException as error:
            first = error if first is None else first
    if first is not None:
        raise first
    return result


def for_each(function, items, /):
    """Call a function with each of some objects, with the next one also after it has raised.

    `contextlib.ExitStack` does this in Python: an interrupt can end it before the last object, and it leaves
    the exception in a cycle with its own frame, so that what the traceback refers to (an execution context)
    lives until a garbage collection.

    Parameters
    ----------
    function : callable
        Takes one object.
    items : iterable
        The objects.

    Raises
    ------
    BaseException
        The first that the function has raised, after all calls.
    """
    cdef object first = None
    for item in list(items):
        try:
            function(item)
        except BaseException as error:
            first = error if first is None else first
    if first is not None:
        raise first


def between(before, function, after, /):
    """Call `before`, `function` and `after`; `after` always, and to its end.

    Parameters
    ----------
    before, function, after : callable
        Without arguments. `after` undoes what `before` has done, also if `before` was cut short. An
        interrupted `after` is called again, so it must be idempotent.

    Returns
    -------
    object
        What `function` returns.
    """
    try:
        before()
        return function()
    finally:
        complete(after)


cdef class Cell:
    """A value that threads and finalizers replace as a whole, without a lock.

    Parameters
    ----------
    value : object
        To begin with.
    """

    __class_getitem__ = classmethod(types.GenericAlias)

    def __init__(self, value):
        self._value = value

    @property
    def value(self):
        """As it is now."""
        with cython.critical_section(self):
            return self._value

    def update(self, change, /):
        """Replace the value by what follows from it.

        Parameters
        ----------
        change : callable
            ``change(value)`` gives the new value, or raises, which changes nothing. Called again if the value
            was replaced meanwhile.

        Returns
        -------
        object
            The value of before.
        """
        while True:
            before = self.value
            after = change(before)
            with cython.critical_section(self):
                if self._value is before:
                    self._value = after
                    return before


cdef class Scope:
    """Base of context managers whose beginning and end no interrupt can cut in two.

    A subclass has a method ``_new_entry()``, which refuses by raising what it must, changes nothing, and
    returns an object with two methods. ``begin()`` returns what ``as`` binds. ``end(may_wait)`` undoes
    ``begin()``, also one that was cut short, and is idempotent. It must not wait for gates if `may_wait` is
    false, since a finalizer may have called it.
    """

    cdef list _entries

    __class_getitem__ = classmethod(types.GenericAlias)

    def __cinit__(self, *args, **kwargs):
        self._entries = []

    @property
    def is_entered(self):
        """Whether it has been entered, and not left."""
        return bool(self._entries)

    def _new_entry(self):
        """Return an object with ``begin()`` and ``end(may_wait)``, or raise; change nothing."""
        raise NotImplementedError

    def __enter__(self):
        entry = self._new_entry()
        self._entries.append(entry)
        try:
            return entry.begin()
        except:
            self._entries.remove(entry)
            complete(entry.end, True)
            raise

    def __exit__(self, kind, error, trace):
        if not self._entries:
            raise RuntimeError(f"{type(self).__name__} is left without having been entered.")
        # A generator that is closed has been collected in the middle of anything.
        complete(self._entries.pop().end, kind is not GeneratorExit)
