"""A small file system for the data of a run, where we may make one."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SIZE = "768m"


@contextmanager
def data_folder(folder: Path) -> Iterator[bool]:
    """Make a folder, on a file system in memory that can be filled up, if we are root and the system lets us.

    The folder is empty afterwards.

    Args:
        folder: not there yet.

    Yields:
        Whether it is a file system of its own.
    """
    folder.mkdir(parents=True)
    is_mounted = False
    if os.geteuid() == 0 and shutil.which("mount"):
        command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=700", "lookalike-chaos", str(folder)]
        is_mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
        shutil.rmtree(folder)
