"""The matrix products of mlx on Linux: its wheel brings reference BLAS, 15 to 40 times slower than OpenBLAS.

Knows which library is loaded and with how many threads. A process that has imported mlx keeps what it found then, so
whoever may be the first to import it calls `fast_blas` before.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import lru_cache

THREADS = "NOTCH_THREADS"  # the environment variable with the number of BLAS threads, see `use_threads`
BLAS_HINT = "install OpenBLAS (Debian, Ubuntu: apt-get install libopenblas0-pthread) to be 15 to 40 times faster"


@lru_cache(maxsize=1)
def fast_blas() -> str:
    """Load OpenBLAS ahead of mlx where that helps. Returns "openblas", "accelerate" or "reference"."""
    if sys.platform != "linux":
        return "accelerate"
    # Before it is loaded: OpenBLAS reads the variable then, and never again.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", os.environ.get(THREADS, "1"))
    try:
        # Global: mlx asks for a plain `cblas_sgemm`, and a library that was opened so before it wins. Wheels of
        # OpenBLAS have renamed theirs.
        ctypes.CDLL("libopenblas.so.0", mode=ctypes.RTLD_GLOBAL)
        library = "openblas"
    except OSError:
        library = "reference"
    import numpy  # noqa: F401  # brings an OpenBLAS of its own, which may have been loaded before this was set

    use_threads(int(os.environ["OPENBLAS_NUM_THREADS"]))
    return library


def use_threads(count: int) -> None:
    """From now on let every OpenBLAS of this process use so many threads; 1 until somebody says more.

    Whoever knows that nothing else runs may ask for 2 (or set NOTCH_THREADS before the start): worth up to a quarter
    on two idle cores. With a busy neighbour the threads spin while they wait for each other: 118 s against 12 s was
    measured for the same work. So one worker of several, or one whose machine is shared, keeps 1.
    """
    from threadpoolctl import threadpool_limits

    threadpool_limits(count, user_api="blas")
