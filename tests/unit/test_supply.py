"""What is deployed is what was locked: each package in one version, with the hashes of its files."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements.lock"
PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[a-z,]+\])?==([^\s;\\]+)", re.MULTILINE)
WRITABLE = {"/app/var", "/tmp"}


@dataclass
class Locked:
    """A package of the lock: its hashes, and what asks for it."""

    version: str
    hashes: list[str] = field(default_factory=list)
    wanted_by: set[str] = field(default_factory=set)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    return {normal(name): version for name, version in PIN.findall((ROOT / "requirements.txt").read_text())}


@pytest.fixture(scope="module")
def locked() -> dict[str, list[Locked]]:
    """The packages by name. Platforms may need different versions of one."""
    packages: dict[str, list[Locked]] = {}
    for line in LOCK.read_text().splitlines():
        if match := PIN.match(line):
            packages.setdefault(normal(match[1]), []).append(package := Locked(match[2]))
        elif match := re.fullmatch(r"    --hash=sha256:([0-9a-f]{64})(?: \\)?", line):
            package.hashes.append(match[1])
        elif line == "    # via" or line.startswith("#"):
            continue
        else:
            match = re.fullmatch(r"    # (?:via|  ) ?(\S.*)", line)
            assert match, line
            package.wanted_by.add(match[1])
    return packages


def test_the_lock_holds_exactly_the_pins_of_requirements_txt(
    pins: dict[str, str], locked: dict[str, list[Locked]]
) -> None:
    asked = {name for name, found in locked.items() if any("-r requirements.txt" in one.wanted_by for one in found)}
    assert asked == set(pins), "run `make lock`"
    assert {name: [one.version for one in locked[name]] for name in pins} == {
        name: [version] for name, version in pins.items()
    }


def test_each_locked_package_has_hashes_and_is_wanted(locked: dict[str, list[Locked]]) -> None:
    assert len(locked) > 50
    for name, found in locked.items():
        for one in found:
            assert one.hashes, name
            wanted_by = {normal(other) for other in one.wanted_by - {"-r requirements.txt"}}
            assert one.wanted_by, name
            assert wanted_by <= set(locked), name


def test_the_lock_names_no_address() -> None:
    assert not re.findall(r"://|--(?:extra-)?index-url|--find-links|--trusted-host", LOCK.read_text())


def test_the_image_is_built_from_the_lock_with_hashes_and_runs_without_rights() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    installs = [line for line in lines if line.startswith("RUN") and "pip install" in line]
    assert installs == ["RUN pip install --require-hashes --only-binary :all: --requirement ${LOCK}"]
    assert f"ARG LOCK={LOCK.name}" in lines
    assert f"!{LOCK.stem}*.lock" in (ROOT / ".dockerignore").read_text().splitlines()
    user = lines.index("USER lookalike")
    assert user > lines.index(installs[0])
    assert not [line for line in lines[user:] if line.startswith(("RUN", "COPY", "USER root"))]
    assert "ENV HOME=/tmp" in lines[user:]


def test_the_processes_of_compose_write_to_two_folders_only_and_have_no_capabilities() -> None:
    services: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    ours = {name: service for name, service in services.items() if service.get("image") == "lookalike"}
    assert len(ours) == 6
    for name, service in ours.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert {volume.rpartition(":")[2] for volume in service["volumes"]} == WRITABLE, name
        paths = [service["environment"][variable] for variable in ("LOOKALIKE_STORE_URL", "TORCH_HOME")]
        assert all(path.startswith("/app/var/") for path in paths), name
