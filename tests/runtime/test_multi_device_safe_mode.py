"""set_multi_device_safe_mode: a function, and a context. What it does on two GPUs is behaviour 24."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from trt_rt.runtime import get_multi_device_safe_mode, set_multi_device_safe_mode


@pytest.fixture(autouse=True)
def _off_before_and_after() -> Iterator[None]:
    assert not get_multi_device_safe_mode()
    yield
    set_multi_device_safe_mode(False)


def test_as_a_function() -> None:
    set_multi_device_safe_mode(True)
    assert get_multi_device_safe_mode() is True
    set_multi_device_safe_mode(False)
    assert get_multi_device_safe_mode() is False


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("mode", [False, True])
def test_as_a_context(before: bool, mode: bool) -> None:
    set_multi_device_safe_mode(before)
    with set_multi_device_safe_mode(mode):
        assert get_multi_device_safe_mode() is mode
    assert get_multi_device_safe_mode() is before


def test_an_exception_ends_it() -> None:
    with pytest.raises(KeyError), set_multi_device_safe_mode(True):
        raise KeyError
    assert not get_multi_device_safe_mode()


def test_nested_and_left_in_any_order() -> None:
    with set_multi_device_safe_mode(True):
        with set_multi_device_safe_mode(False):
            assert not get_multi_device_safe_mode()
        assert get_multi_device_safe_mode()
    first, second = set_multi_device_safe_mode(True).__enter__(), set_multi_device_safe_mode(True).__enter__()
    first.__exit__(None, None, None)
    assert get_multi_device_safe_mode()
    second.__exit__(None, None, None)
    assert not get_multi_device_safe_mode()


def test_entered_again_but_not_twice() -> None:
    context = set_multi_device_safe_mode(True)
    for _ in range(2):
        with context:
            with pytest.raises(RuntimeError, match="entered already"), context:
                pass
            assert get_multi_device_safe_mode()
        assert not get_multi_device_safe_mode()
    with pytest.raises(RuntimeError, match="without having been entered"):
        context.__exit__(None, None, None)
