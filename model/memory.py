"""Memory that one minibatch frees is kept for the next one."""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_LARGEST = 32 * 1024 * 1024  # what glibc itself goes up to
_KEPT = 256 * 1024 * 1024


def keep_freed_memory() -> bool:
    """Ask the C library not to give blocks of up to 32 MiB back to the system, up to 256 MiB of them.

    Every minibatch needs the same few buffers of some megabytes. By default glibc takes them from the system and gives
    them back each time, and the system hands out each page anew, zeroed: 2,100 page faults a minibatch of 4096 rows,
    a sixth of the time. Larger blocks go back when they are freed, as ever.

    It holds for every thread, and glibc gives threads heaps of their own: a thread that takes much and ends leaves it
    kept where others seldom find it. So what works beside training, as the writer of checkpoints, copies no tables.

    Returns:
        Whether this C library can do so.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST)) and bool(mallopt(_TRIM_THRESHOLD, _KEPT))
