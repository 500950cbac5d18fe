"""Sends a catalogue file from this machine: packs it where it needs that, uploads it, shows both."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console

from client.api import Api, Job
from client.packing import packed
from client.watching import packing_progress, upload_progress


def send_catalogue(api: Api, file: Path, parameters: Mapping[str, Any], console: Console) -> Job:
    """Upload a catalogue file, with the images next to it, and return the job that imports it.

    Args:
        api: the server.
        file: CSV, NDJSON, Parquet or ZIP.
        parameters: mode, columns, encoding; as in the API.
        console: where progress is shown.
    """
    image_column = parameters.get("columns", {}).get("image")
    with ExitStack() as stack:
        with packing_progress(console) as on_packed:
            encoding = parameters.get("encoding", "utf-8")
            archive = stack.enter_context(packed(file, image_column, encoding, on_packed))
        with upload_progress(console) as on_sent:
            return api.import_file(archive, parameters, on_sent)
