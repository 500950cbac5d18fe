"""A small catalogue with real photos in a real store, to build releases from."""

import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from shared.catalogue import Catalogue
from shared.catalogue_change import ImageRef, ItemChange
from shared.database import connect_database
from shared.migrations import upgrade
from shared.releases import Release, announce_release
from shared.settings import Settings
from shared.store import Store
from worker.releases import open_release, serving_release
from worker.releases.encoder_folders import keep_encoder, local_folder
from worker.releases.release import release_of

ROOT = Path(__file__).parent.parent
COLOURS = {"red": (200, 40, 40), "green": (40, 160, 60), "blue": (40, 70, 190), "grey": (128, 128, 128)}


def photo(number: int) -> bytes:
    """Return a PNG of 48 x 48 with noise around one of four colours; each number gives another one."""
    colour = list(COLOURS.values())[number % len(COLOURS)]
    noise = np.random.default_rng(number).normal(0, 30, (48, 48, 3))
    file = io.BytesIO()
    Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


@dataclass
class Shop:
    """A catalogue, its store and the settings that name both. Encoders are shared by all shops of this machine."""

    folder: Path
    settings: Settings
    catalogue: Catalogue
    store: Store

    def fill(self, items: int) -> list[str]:
        """Put items with one photo each; returns the hashes of the photos."""
        hashes = self.store.put_images([photo(number) for number in range(items)])
        names = list(COLOURS)
        with self.catalogue.change() as change:
            change.put(
                [
                    ItemChange(f"i{number}", "", {"colour": names[number % 4]}, [ImageRef(sha256, "image/png")])
                    for number, sha256 in enumerate(hashes)
                ]
            )
        return hashes

    def serve(self) -> Release:
        return serving_release(self.catalogue, self.store, self.settings)

    def interrupted_build(self) -> Release:
        """Return a release as an interrupted build leaves it: another encoder, kept and noted, and nothing more."""
        first = self.serve()
        open_release(first, self.store, self.settings)
        encoder = first.manifest["encoder"]
        manifest = {**encoder, "id": f"{encoder['id']}.int8-abcdef"}
        folder = local_folder(self.settings, manifest)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(local_folder(self.settings, encoder), folder)
        (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        keep_encoder(folder, manifest, self.store)
        counts = {"images": 40, "calibration_images": 10, "held_out_images": 30}
        draft = release_of(manifest, built_from={**counts, "label": None, "asked": ["auto", None]})
        announce_release(self.catalogue, draft)
        return draft

    def command(self, *arguments: str, **environment: str) -> dict[str, Any]:
        """Return what subprocess needs to run Python with arguments on this shop."""
        fixed = {
            "PATH": os.environ["PATH"],
            "DATABASE_URL": self.settings.database_url,
            "LOOKALIKE_STORE_URL": self.settings.store_url,
            "LOOKALIKE_ENCODER_CACHE_PATH": str(self.settings.encoder_cache_path),
            "PYTHONWARNINGS": "error",
        }
        return {"args": [sys.executable, *arguments], "cwd": ROOT, "env": {**fixed, **environment}, "text": True}

    def run(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(**self.command(*arguments, **environment), capture_output=True, timeout=170)


def open_shop(folder: Path, **values: Any) -> Shop:
    """Return an empty shop in a folder."""
    url = f"sqlite:///{folder}/lookalike.sqlite3"
    cache = ROOT / "var" / "encoders"
    fixed = {"DATABASE_URL": url, "store_url": str(folder / "store"), "encoder_cache_path": cache}
    settings = Settings(_env_file=None, **{**fixed, **values})
    engine = connect_database(url)
    upgrade(engine)
    return Shop(folder, settings, Catalogue(engine), Store(settings.store_url))
