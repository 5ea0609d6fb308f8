"""Memory that a call frees is kept for the next one."""

import numpy as np

_SIZE = 31 << 20

_asked = False


def keep_freed() -> None:
    """Have glibc keep what is freed, up to 62 MiB, instead of handing it back to the system; once a process.

    It hands memory back beyond twice the largest block that ever came from the system on its own and was
    freed, 128 KiB at first, while a training step frees megabytes: each of their pages then takes 2 to 3 µs
    when the next step needs it. So take such a block, of nearly the 32 MiB that count at most, and
    free it untouched, as any process does that handles data of this size. It changes nothing where
    thresholds are set (``MALLOC_TRIM_THRESHOLD_``, ``mallopt``) or ``malloc`` is not glibc's.
    """
    global _asked
    if not _asked:
        _asked = True
        np.empty(_SIZE, np.uint8)
