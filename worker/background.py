"""Running a command behind everything else.

python -m worker.background COMMAND [ARGUMENT ...]
"""

import os
import sys
from contextlib import suppress
from pathlib import Path

NICE = 10  # a weight of 110 against 1,024
_SESSION_NICE = Path("/proc/self/autogroup")


def step_back() -> None:
    """Leave the CPU to other processes as long as they want it; this process and all that it starts later.

    Linux may weigh sessions before the processes in them (autogroups). Niceness then means nothing to processes of
    other sessions, and every service that a process manager starts has its own. So its session steps back as well.
    """
    os.nice(NICE)
    # The session of a leader is its own; that of others may be the search worker's too.
    if os.getsid(0) == os.getpid():
        with suppress(OSError):  # a kernel without autogroups, or a container that may not
            _SESSION_NICE.write_text(str(NICE))


def main() -> None:
    """Step back and become the command."""
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    step_back()
    try:
        os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606  # what the caller named is to be run
    except OSError as error:
        raise SystemExit(f"{sys.argv[1]} can't be started: {error}") from error


if __name__ == "__main__":
    main()
