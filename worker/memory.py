"""How much memory a worker holds."""

import psutil


def resident_bytes() -> int:
    """Return the resident memory of this process and its children; files that several map count for each."""
    process = psutil.Process()
    total = 0
    for member in (process, *process.children(recursive=True)):
        try:
            total += member.memory_info().rss
        except psutil.NoSuchProcess:  # a child that has just ended
            continue
    return total
