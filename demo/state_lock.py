"""One run at a time may use a state folder: two servers that write one append-only file would destroy it."""

import fcntl
import time
from pathlib import Path
from typing import IO

from demo.process import POLL_SECONDS

LOCK_SECONDS = 10  # what an earlier run may need to end


class StateInUse(RuntimeError):
    """Another run uses the same state folder."""


def lock_state(folder: Path, wait_seconds: float = LOCK_SECONDS) -> IO[str]:
    """Lock a folder for as long as the returned file, or a process that inherited it, holds it open.

    Raises:
        StateInUse: if somebody else holds it and doesn't let go.
    """
    lock = (folder / "lock").open("w")
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                lock.close()
                raise StateInUse(f"Another run uses {folder}; stop it first.") from None
            time.sleep(POLL_SECONDS)
        else:
            return lock
