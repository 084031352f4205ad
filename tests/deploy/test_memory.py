"""One heap for all threads, where the C library is glibc."""

import re
import subprocess
import sys

import pytest

HEAPS = """
import ctypes, sys, threading
from deploy.memory import one_heap
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
if sys.argv[1] == "one":
    assert one_heap()
together = threading.Barrier(8)
def work():
    block = libc.malloc(1000)
    together.wait()
    libc.free(block)
threads = [threading.Thread(target=work) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
libc.malloc_stats()
"""


def heaps(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", HEAPS, how], capture_output=True, text=True, check=True)
    return len(re.findall(r"^Arena \d+:", done.stderr, re.MULTILINE))


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_threads_share_one_heap_and_have_their_own_without() -> None:
    assert heaps("one") == 1
    assert heaps("each") > 1
