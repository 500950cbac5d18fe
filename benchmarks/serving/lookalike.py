"""Lookalike as its users run it: the Procfile's processes with default settings, spoken to by the public API."""

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import redis
import requests

from benchmarks.serving.bundle import Bundle, export_index
from benchmarks.serving.load import WAIT, LoadPlan, run_load
from benchmarks.serving.photos import Product, write_table
from benchmarks.serving.processes import ROOT, environment
from demo.processes import ProcessGroup
from shared.catalogue import Catalogue
from shared.database import connect_database
from shared.settings import Settings

PARTS = ("web", "search", "redis", "bulk", "callbacks", "beat")
FRESH = {"Prefer": WAIT, "Cache-Control": "no-cache"}
CACHED = {"Prefer": WAIT}
BUILD_SECONDS = 900
IMPORT_SECONDS = 900
POLL_SECONDS = 0.2
READY_SECONDS = 600  # the first start makes a release


@dataclass(frozen=True)
class Lookalike:
    """One installation: its state and its settings; started and stopped as often as needed."""

    backbone: str
    weights: Path | None
    state: Path
    root: Path

    @property
    def variables(self) -> dict[str, str]:
        """What is set; all else is left as it comes."""
        return {
            "DATABASE_URL": f"sqlite:///{self.state}/lookalike.sqlite3",
            "LOOKALIKE_STORE_URL": str(self.state / "store"),
            "LOOKALIKE_IMPORT_ROOT": str(self.root),
            "LOOKALIKE_ENCODER": self.backbone,
            "LOOKALIKE_ENCODER_WEIGHTS_PATH": str(self.weights or ""),
            "LOOKALIKE_ENCODER_CACHE_PATH": str(self.state / "encoders"),
        }

    def group(self) -> ProcessGroup:
        """Return the processes, not started yet."""
        return ProcessGroup(ROOT, self.state, environment=self.variables, ready_seconds=READY_SECONDS)

    def build_release(self, redis_url: str) -> float:
        """Choose the runtime and embed the catalogue for it, as an operator does; return the seconds.

        Raises:
            RuntimeError: with what it said, if it failed.
        """
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "worker.build_release"],
            cwd=ROOT,
            env=environment({**self.variables, "REDIS_URL": redis_url}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=BUILD_SECONDS,
            check=False,
        )
        (self.state / "logs" / "build_release.log").write_text(done.stdout, encoding="utf-8")
        if done.returncode != 0:
            raise RuntimeError(f"worker.build_release ended with {done.returncode}:\n{done.stdout[-3000:]}")
        return time.perf_counter() - start

    def catalogue(self) -> Catalogue:
        """Return the catalogue database."""
        return Catalogue(connect_database(self.variables["DATABASE_URL"]))

    def bundle(self, folder: Path, threads: int) -> tuple[Path, dict[str, Any]]:
        """Write what the other systems answer from; return the bundle's file and the active release's manifest."""
        from shared.releases import active_release
        from worker.releases.encoder_folders import local_folder

        catalogue = self.catalogue()
        release = active_release(catalogue)
        if release is None:
            raise RuntimeError("no release is active")
        cache = self.state / "encoders"
        encoder = local_folder(Settings(encoder_cache_path=cache), release.manifest["encoder"])
        export_index(catalogue, release, cache, folder)
        path = folder / "bundle.json"
        Bundle(self.backbone, str(self.weights) if self.weights else None, str(encoder), str(folder), threads).save(
            path
        )
        return path, release.manifest


class Running:
    """The processes of an installation while they run."""

    def __init__(self, group: ProcessGroup) -> None:
        self.group = group
        self.redis = redis.Redis.from_url(group.redis_url)

    @property
    def groups(self) -> dict[str, int]:
        """Process groups whose CPU time is told apart."""
        return {name: self.group.pid(name) for name in PARTS}

    def plan(self, photos: Sequence[str], clients: int, headers: dict[str, str], **more: Any) -> LoadPlan:
        """Return a plan that searches with photos."""
        port, fields = cast("int", urlsplit(self.group.base_url).port), {"k": more.pop("k", "10")}
        groups = self.groups
        return LoadPlan(
            port, "/v1/searches", list(photos), clients, fields=fields, headers=headers, groups=groups, **more
        )

    def import_products(self, products: Sequence[Product], root: Path, name: str) -> dict[str, Any]:
        """Import products through the API and wait for the end; return the job's result and the seconds it took.

        `committed_s` is the time to the last commit, `seconds` that to the end, with the report of near-duplicates.

        Raises:
            RuntimeError: if the import failed, or left out rows.
        """
        write_table(products, root / name)
        start = time.perf_counter()
        job = requests.post(f"{self.group.base_url}/v1/imports", json={"path": name}, timeout=60).json()
        committed_s = None
        while job.get("status") in ("queued", "running"):
            self.group.require_alive()
            if time.perf_counter() - start > IMPORT_SECONDS:
                raise RuntimeError(f"import {name} is not done after {IMPORT_SECONDS} s: {job}")
            time.sleep(POLL_SECONDS)
            job = requests.get(f"{self.group.base_url}/v1/jobs/{job['id']}", timeout=60).json()
            if committed_s is None and (job.get("progress") or {}).get("done") == len(products):
                committed_s = time.perf_counter() - start
        if job.get("status") != "succeeded" or job["result"]["failed"]:
            raise RuntimeError(f"import {name}: {job}")
        seconds = time.perf_counter() - start
        return {**job["result"], "seconds": seconds, "committed_s": committed_s or seconds}

    def search_while_importing(self, plan: LoadPlan, products: Sequence[Product], root: Path) -> dict[str, Any]:
        """Run a load while an import runs.

        Returns:
            search: the load's figures; import: as `import_products`; covered: whether the import ran to the load's end.
        """
        imported: dict[str, Any] = {}

        def run() -> None:
            try:
                imported.update(self.import_products(products, root, "while-searching.csv"))
            except (RuntimeError, OSError) as error:
                imported["error"] = str(error)

        importer = threading.Thread(target=run)
        importer.start()
        try:
            load = run_load(plan)
            covered = importer.is_alive()
        finally:
            importer.join()
        if "error" in imported:
            raise RuntimeError(imported["error"])
        return {"search": load["windows"][0], "import": imported, "covered": covered}

    def redis_counters(self) -> Counter[str]:
        """Return how often Redis ran each command, those within scripts and transactions too, and bytes in and out."""
        stats = cast("dict[str, dict[str, int]]", self.redis.info("commandstats"))
        totals = cast("dict[str, int]", self.redis.info("stats"))
        calls = Counter({name.removeprefix("cmdstat_"): values["calls"] for name, values in stats.items()})
        calls["bytes_in"], calls["bytes_out"] = totals["total_net_input_bytes"], totals["total_net_output_bytes"]
        return calls
