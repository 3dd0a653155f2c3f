"""Reading ahead: the next thing is made in a thread while the last one is in use."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
_END = object()


def ahead(things: Iterable[T], depth: int = 1) -> Generator[T, None, None]:
    """The same things in the same order, up to `depth` of them made before they are asked for.

    What making one raises is raised here. Memory: the one in use and `depth` more.
    """
    source = iter(things)
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:
        coming = deque(thread.submit(next, source, _END) for _ in range(depth))
        try:
            while (thing := coming.popleft().result()) is not _END:
                coming.append(thread.submit(next, source, _END))
                yield thing  # type: ignore[misc]
                del thing  # else it would outlive its use by the making of another
        finally:
            thread.shutdown(wait=True, cancel_futures=True)
