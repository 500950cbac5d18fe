"""The Procfile and docker-compose.yml start the same services with the same commands."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo.procfile import RELEASE, read_procfile
from shared.queues import QUEUES
from web import gunicorn_config

ROOT = Path(__file__).resolve().parents[2]
INFRASTRUCTURE = {"redis", "postgres"}
SHELL_CHARACTERS = set("$`;&|<>*?~")


@pytest.fixture(scope="module")
def procfile() -> dict[str, list[str]]:
    return read_procfile(ROOT / "Procfile")


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    found: dict[str, dict[str, Any]] = compose["services"]
    return found


def _ours(services: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: service for name, service in services.items() if name not in INFRASTRUCTURE}


def test_compose_runs_every_process_of_the_procfile_and_no_other(
    procfile: dict[str, list[str]], services: dict[str, dict[str, Any]]
) -> None:
    assert set(_ours(services)) == set(procfile)


def test_each_service_has_exactly_the_procfile_s_command(
    procfile: dict[str, list[str]], services: dict[str, dict[str, Any]]
) -> None:
    assert {name: shlex.split(service["command"]) for name, service in _ours(services).items()} == procfile


def test_commands_mean_the_same_with_and_without_a_shell(procfile: dict[str, list[str]]) -> None:
    for name, command in procfile.items():
        assert not SHELL_CHARACTERS & set(" ".join(command)), f"{name} needs a shell, which neither runner uses"


def test_every_service_has_a_health_check_with_a_start_period(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        if name != RELEASE:
            assert service["healthcheck"]["test"], name
            assert service["healthcheck"]["start_period"], name


def test_every_process_waits_for_redis_and_for_the_migrations(services: dict[str, dict[str, Any]]) -> None:
    for name, service in _ours(services).items():
        if name != RELEASE:
            assert service["depends_on"]["redis"]["condition"] == "service_healthy", name
            assert service["depends_on"][RELEASE]["condition"] == "service_completed_successfully", name
    assert services[RELEASE]["depends_on"]["postgres"]["condition"] == "service_healthy"


def test_a_process_may_take_as_long_to_end_as_its_clients_may_wait(services: dict[str, dict[str, Any]]) -> None:
    for name, service in _ours(services).items():
        assert int(service["stop_grace_period"].removesuffix("s")) > gunicorn_config.graceful_timeout, name


def test_redis_keeps_an_append_only_file_on_a_volume(services: dict[str, dict[str, Any]]) -> None:
    assert "--appendonly yes" in services["redis"]["command"]
    assert "--maxmemory-policy noeviction" in services["redis"]["command"]
    assert services["redis"]["volumes"]
    assert services["postgres"]["volumes"]


def test_every_process_of_compose_takes_the_settings_of_dotenv(services: dict[str, dict[str, Any]]) -> None:
    for name, service in _ours(services).items():
        assert service["env_file"] == [{"path": ".env", "required": False}], name


def test_dotenv_never_becomes_part_of_the_image() -> None:
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert patterns[0] == "*"
    last_allowed = max(index for index, pattern in enumerate(patterns) if pattern.startswith("!"))
    assert "**/.env*" in patterns[last_allowed:], "the last pattern that fits decides"


def test_every_queue_has_a_worker(procfile: dict[str, list[str]]) -> None:
    served = [
        queue
        for command in procfile.values()
        if "--queues" in command
        for queue in command[command.index("--queues") + 1].split(",")
    ]
    assert sorted(served) == sorted(QUEUES)


def test_a_procfile_line_that_is_no_process_is_named(tmp_path: Path) -> None:
    file = tmp_path / "Procfile"
    file.write_text("# comment\n\nweb: serve 'a b'\njust words\n")
    with pytest.raises(ValueError, match=r"Procfile:4: .*just words"):
        read_procfile(file)


def test_a_procfile_that_names_a_process_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "Procfile"
    file.write_text("web: one\nweb: two\n")
    with pytest.raises(ValueError, match=r"Procfile:2"):
        read_procfile(file)


def test_procfile_commands_are_split_as_a_shell_splits_them(tmp_path: Path) -> None:
    file = tmp_path / "Procfile"
    file.write_text('web: serve --name "a b" app()\n')
    assert read_procfile(file) == {"web": ["serve", "--name", "a b", "app()"]}
