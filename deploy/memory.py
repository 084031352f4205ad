"""Memory of processes that run for weeks with many threads."""

import ctypes

_ARENA_MAX = -8  # of mallopt(3)


def one_heap() -> bool:
    """Let all threads of this process share one heap of the C library; call it before threads are started.

    glibc gives threads heaps of their own, eight a core, and what one thread frees another cannot have. With Beam's
    fifty threads, of which some end and others begin all the time, a live ingest grew by 4 MB a minute that nobody held
    (100 events a second; Python's own objects stayed as they were). With one heap it stays, at the same speed: Python,
    Polars and Arrow have allocators of their own, and what is left seldom meets.

    Returns:
        Whether this C library can do so.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(_ARENA_MAX, 1))
