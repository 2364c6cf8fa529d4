"""A disk that is full: the system itself lets no file grow beyond a size."""

from contextlib import contextmanager

import pytest


@contextmanager
def no_file_above(size):
    """Within, writing beyond `size` bytes of any file fails (EFBIG), as on a full disk (ENOSPC)."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
