"""What the children of a process are doing: so that a test can break in while a run is under way, not before or after."""

import time

from psutil import NoSuchProcess, Process


def kernels(pid):
    """The kernels of notebooks that run under a process."""
    found = []
    for child in Process(pid).children(recursive=True):
        try:
            if any("ipykernel" in word for word in child.cmdline()):
                found.append(child.pid)
        except NoSuchProcess:
            continue
    return found


def wait_for_kernel(child, timeout=60):
    """Wait until a started process has a kernel running."""
    ends = time.monotonic() + timeout
    while child.poll() is None and time.monotonic() < ends:
        if kernels(child.pid):
            return
        time.sleep(0.02)
    raise AssertionError(f"no kernel was started: {child.communicate()}")
