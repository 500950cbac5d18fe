"""ProcessGroup with a Procfile of toy processes: what it starts, what it notices, what it leaves behind (nothing)."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
import requests

from demo.process import ProcessFailed
from demo.processes import ProcessGroup
from demo.state_lock import StateInUse, lock_state

REPOSITORY = Path(__file__).resolve().parents[2]
DEADLINE_SECONDS = 20

PROCFILE = """
release: python release.py
web: python web.py
search: python search.py
"""

RELEASE = """
import os, pathlib
pathlib.Path("released").write_text(os.environ["REDIS_URL"])
print("migrated", os.environ.get("TOY", ""))
"""

WEB = """
import http.server, json, os, pathlib
assert pathlib.Path("released").exists(), "web started before the release was done"
host, port = os.environ["LOOKALIKE_WEB_BIND"].split(":")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        workers = 1 if pathlib.Path("search-pids").exists() else 0
        body = json.dumps({"ready": True, "checks": {}, "search_workers": workers, "bulk_workers": 0}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer((host, int(port)), Handler).serve_forever()
"""

SEARCH = """
import os, pathlib, signal, subprocess, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path("new-pids").write_text(f"{os.getpid()} {child.pid}")
pathlib.Path("new-pids").rename("search-pids")
signal.sigwait([signal.SIGTERM])
"""

STUBBORN = "sigwait([signal.SIGUSR1])"


def _is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_SECONDS} s: {what}"
        time.sleep(0.02)


def _search_pids(root: Path) -> list[int]:
    return [int(pid) for pid in (root / "search-pids").read_text().split()]


def _dump(program: str) -> str:
    return textwrap.dedent(program).lstrip()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, content in {"Procfile": PROCFILE, "release.py": RELEASE, "web.py": WEB, "search.py": SEARCH}.items():
        (tmp_path / name).write_text(_dump(content))
    return tmp_path


@pytest.fixture
def group(root: Path) -> Iterator[ProcessGroup]:
    with ProcessGroup(root, root / "state", environment={"TOY": "given"}) as started:
        yield started


def test_every_process_runs_and_the_release_ran_first(group: ProcessGroup, root: Path) -> None:
    assert (root / "released").read_text() == group.redis_url
    assert requests.get(f"{group.base_url}/readyz", timeout=5).json()["search_workers"] == 1
    assert group.pid("search") == _search_pids(root)[0]
    with redis.Redis.from_url(group.redis_url) as client:
        assert client.ping()
    assert "migrated given" in group.log("release").read_text()


def test_stop_leaves_no_process_behind_not_even_children_of_children(root: Path) -> None:
    with ProcessGroup(root, root / "state") as group:
        pids = [group.pid("web"), group.pid("redis"), *_search_pids(root)]
        assert all(map(_is_alive, pids))
    _wait_until(lambda: not any(map(_is_alive, pids)), "all of its processes are gone")
    group.stop()


def test_each_process_leads_a_session_of_its_own_so_that_a_terminal_s_interrupt_misses_it(group: ProcessGroup) -> None:
    assert os.getsid(group.pid("search")) == group.pid("search") != os.getsid(0)


def test_only_the_wanted_processes_run(root: Path) -> None:
    with ProcessGroup(root, root / "state", processes=("web",)) as group:
        assert requests.get(f"{group.base_url}/readyz", timeout=5).json()["search_workers"] == 0
        with pytest.raises(KeyError):
            group.pid("search")


def test_a_process_that_dies_at_its_start_is_reported_with_the_end_of_its_log(root: Path) -> None:
    (root / "search.py").write_text("raise SystemExit('no model here')\n")
    with pytest.raises(ProcessFailed, match=r"search ended with status 1\n.*search\.log.*\n.*no model here") as caught:
        ProcessGroup(root, root / "state").start()
    assert caught.value.log == root / "state" / "logs" / "search.log"


def test_a_failed_release_starts_nothing_else(root: Path) -> None:
    (root / "release.py").write_text("raise SystemExit('no table here')\n")
    with pytest.raises(ProcessFailed, match=r"release ended with status 1\n(.*\n)*.*no table here"):
        ProcessGroup(root, root / "state").start()
    assert not (root / "state" / "logs" / "web.log").exists()


def test_a_program_that_is_not_there_is_reported(root: Path) -> None:
    (root / "Procfile").write_text("web: no-such-program-here\n")
    with pytest.raises(ProcessFailed, match="web"):
        ProcessGroup(root, root / "state", ready_seconds=5).start()


def test_a_worker_that_never_reports_is_named_when_the_time_is_over(root: Path) -> None:
    (root / "search.py").write_text("print('still loading', flush=True)\nimport time; time.sleep(600)\n")
    with pytest.raises(ProcessFailed, match=r"not ready after 1 s: no search worker(.*\n)*.*still loading"):
        ProcessGroup(root, root / "state", ready_seconds=1, grace_seconds=1).start()


def test_a_process_that_ignores_sigterm_is_killed_after_the_grace(root: Path) -> None:
    (root / "search.py").write_text(_dump(SEARCH).replace("sigwait([signal.SIGTERM])", STUBBORN))
    with ProcessGroup(root, root / "state", grace_seconds=0.5) as group:
        pids = _search_pids(root)
        began = time.monotonic()
        group.stop()
    assert time.monotonic() - began > 0.5
    _wait_until(lambda: not any(map(_is_alive, pids)), "all of its processes are gone")


def test_a_killed_process_takes_its_children_along_and_can_be_started_again(group: ProcessGroup, root: Path) -> None:
    before = _search_pids(root)
    group.kill("search")
    _wait_until(lambda: not any(map(_is_alive, before)), "all of its group are gone")
    group.require_alive()
    (root / "search-pids").unlink()
    group.restart("search")
    group.wait_until_ready()
    assert set(_search_pids(root)).isdisjoint(before)
    group.require_alive()


def test_a_process_that_dies_unasked_ends_the_wait(group: ProcessGroup) -> None:
    os.kill(group.pid("search"), signal.SIGKILL)
    with pytest.raises(ProcessFailed, match="search ended with status -9"):
        group.wait()


def test_other_signals_reach_the_process_alone(group: ProcessGroup, root: Path) -> None:
    leader, child = _search_pids(root)
    group.kill("search", signal.SIGSTOP)
    _wait_until(lambda: Path(f"/proc/{leader}/stat").read_text().rpartition(")")[2].split()[0] == "T", "it is stopped")
    assert Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "S"
    group.kill("search", signal.SIGCONT)


def test_redis_keeps_what_it_has_through_a_crash_and_a_restart(group: ProcessGroup) -> None:
    with redis.Redis.from_url(group.redis_url) as client:
        client.set("kept", "yes")
        client.config_set("appendfsync", "always")
        client.set("kept too", "yes")
    group.kill("redis")
    group.restart("redis")
    with redis.Redis.from_url(group.redis_url) as client:
        assert client.mget("kept", "kept too") == [b"yes", b"yes"]


def test_the_next_group_finds_the_redis_data_of_the_last_one(root: Path) -> None:
    with ProcessGroup(root, root / "state") as group, redis.Redis.from_url(group.redis_url) as client:
        client.set("kept", "yes")
    with ProcessGroup(root, root / "state") as group, redis.Redis.from_url(group.redis_url) as client:
        assert client.get("kept") == b"yes"


def test_a_given_redis_is_used_and_left_running(group: ProcessGroup, root: Path) -> None:
    with ProcessGroup(root, root / "other state", redis_url=group.redis_url) as second:
        assert second.redis_url == group.redis_url
        with pytest.raises(KeyError):
            second.pid("redis")
    with redis.Redis.from_url(group.redis_url) as client:
        assert client.ping()


def test_a_state_folder_serves_one_run_at_a_time(tmp_path: Path) -> None:
    with lock_state(tmp_path), pytest.raises(StateInUse, match="Another run uses"):
        lock_state(tmp_path, wait_seconds=0.1)
    lock_state(tmp_path, wait_seconds=0.1).close()


@pytest.fixture
def holder(root: Path) -> Iterator[subprocess.Popen[str]]:
    """A program that started a group and waits."""
    program = f"""
        import pathlib
        from demo.processes import ProcessGroup
        with ProcessGroup(pathlib.Path({str(root)!r}), pathlib.Path({str(root / "state")!r})) as group:
            print(group.pid("web"), group.pid("redis"), flush=True)
            group.wait()
    """
    command = [sys.executable, "-c", _dump(program)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def _pids_of(holder: "subprocess.Popen[str]", root: Path) -> list[int]:
    assert holder.stdout
    return [*map(int, holder.stdout.readline().split()), *_search_pids(root)]


def test_an_interrupt_stops_everything(holder: "subprocess.Popen[str]", root: Path) -> None:
    pids = _pids_of(holder, root)
    assert len(pids) == 4
    assert all(map(_is_alive, pids))
    holder.send_signal(signal.SIGINT)
    holder.wait(DEADLINE_SECONDS)
    _wait_until(lambda: not any(map(_is_alive, pids)), "all of its processes are gone")


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="only setpriv (Linux) can tie a process to its parent")
def test_processes_end_when_their_parent_is_killed(holder: "subprocess.Popen[str]", root: Path) -> None:
    pids = _pids_of(holder, root)[:3]
    holder.kill()
    _wait_until(lambda: not any(map(_is_alive, pids)), "the orphans have ended")
