"""The settings of a server, checked where they enter."""

from __future__ import annotations

from dataclasses import dataclass

from trt_rt.errors import SettingError

__all__ = ["ServingSettings"]


@dataclass(frozen=True)
class ServingSettings:
    """How requests are batched, limited and retried; `deployment` has the meaning of each.

    Raises
    ------
    SettingError
        A value is out of range.
    """

    batching: bool = True
    max_batch_size: int | None = None
    batch_wait_timeout_s: float = 0.002
    max_queued_requests: int = -1
    max_body_bytes: int = 64 * 2**20
    max_retries: int = 3
    public_key: bytes | None = None

    def __post_init__(self) -> None:
        if self.max_batch_size is not None and self.max_batch_size < 1:
            raise SettingError(f"max_batch_size is {self.max_batch_size}; it must be at least 1.")
        if not 0 <= self.batch_wait_timeout_s <= 60:
            raise SettingError(
                f"batch_wait_timeout_s is {self.batch_wait_timeout_s}; it must be 0 to 60 seconds."
            )
        if self.max_queued_requests < -1:
            raise SettingError(
                f"max_queued_requests is {self.max_queued_requests}; it must be at least 0, or -1 for no "
                "limit."
            )
        if self.max_body_bytes < 1:
            raise SettingError(f"max_body_bytes is {self.max_body_bytes}; it must be at least 1.")
        if self.max_retries < 0:
            raise SettingError(f"max_retries is {self.max_retries}; it must be at least 0.")
