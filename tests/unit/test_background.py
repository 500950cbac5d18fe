"""Bulk work steps back behind everything else, on kernels that weigh sessions first too."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stack import ROOT
from worker.background import NICE

SESSION_NICE = Path("/proc/self/autogroup")
BACKGROUND = [sys.executable, "-m", "worker.background"]
REPORT = f"import os; print(os.nice(0), open({str(SESSION_NICE)!r}).read().split()[-1])"


def run(*command: str, own_session: bool) -> str:
    done = subprocess.run(
        command, cwd=ROOT, start_new_session=own_session, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip()


@pytest.mark.skipif(not SESSION_NICE.exists(), reason="this kernel has no autogroups")
def test_a_command_with_a_session_of_its_own_steps_back_with_it() -> None:
    assert run(*BACKGROUND, sys.executable, "-c", REPORT, own_session=True) == f"{os.nice(0) + NICE} {NICE}"


@pytest.mark.skipif(not SESSION_NICE.exists(), reason="this kernel has no autogroups")
def test_a_command_leaves_the_session_of_others_as_it_is() -> None:
    background = f"subprocess.run([*{BACKGROUND!r}, sys.executable, '-c', {REPORT!r}], check=True)"
    assert run(sys.executable, "-c", f"import subprocess, sys; {background}", own_session=True).split() == [
        str(os.nice(0) + NICE),
        "0",
    ]


def test_the_command_is_the_same_process_with_its_own_exit_status() -> None:
    popen = subprocess.Popen(
        [*BACKGROUND, sys.executable, "-c", "import os; print(os.getpid()); raise SystemExit(7)"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    out, _ = popen.communicate(timeout=60)
    assert (int(out), popen.returncode) == (popen.pid, 7)


@pytest.mark.parametrize(("command", "message"), [([], "COMMAND"), (["no-such-program"], "can't be started")])
def test_without_a_command_that_can_be_run_it_says_so(command: list[str], message: str) -> None:
    done = subprocess.run([*BACKGROUND, *command], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert message in done.stderr
