"""A connection to Milvus: a server by its address, or a local file by milvus-lite. Failures are translated here."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import grpc
from pymilvus import MilvusClient
from pymilvus.exceptions import MilvusException

from shared.errors import IndexUnavailable

log = logging.getLogger(__name__)

CONNECT_SECONDS = 10.0


class MilvusConnection:
    """One client for all threads; opened when it is first used, and again by itself after the server was away."""

    def __init__(self, url: str, token: str | None = None) -> None:
        """Args:
        url: `http://host:19530`, with a database's name behind it if wanted, or the path of a local file, `….db`.
        token: `user:password` or an API key, where the server asks for one.
        """
        self._url = url
        self._token = token
        self._opening = Lock()
        self._client: MilvusClient | None = None

    @property
    def is_local(self) -> bool:
        """Whether it is a file, which this process alone may have open."""
        return self._url.endswith(".db")

    @contextmanager
    def calling(self) -> Iterator[Any]:
        """Give the client to a block, whose failures become ours.

        Raises:
            IndexUnavailable: if Milvus can't be reached in time, or refuses; the log has its own words.
        """
        try:
            yield self._opened()
        except (MilvusException, grpc.RpcError, grpc.FutureTimeoutError) as error:
            log.warning("Milvus failed: %s", error)
            raise IndexUnavailable("The index can't be reached now. Try again in a moment.") from error

    def _opened(self) -> MilvusClient:
        with self._opening:
            if self._client is None:
                self._client = self._open_file() if self.is_local else self._connect()
            return self._client

    def _connect(self) -> MilvusClient:
        return MilvusClient(uri=self._url, token=self._token or "", timeout=CONNECT_SECONDS)

    def _open_file(self) -> MilvusClient:
        Path(self._url).parent.mkdir(parents=True, exist_ok=True)
        try:
            return MilvusClient(uri=self._url)
        except MilvusException as error:
            raise IndexUnavailable(
                f"{self._url} can't be opened: another process has it, or it is damaged (the log says which). "
                "milvus-lite's file may be open in one process only: run one search worker with it, or a Milvus server."
            ) from error

    def close(self) -> None:
        """End the connection; a local file may be opened again then."""
        with self._opening:
            client, self._client = self._client, None
        if client is not None:
            client.close()
            if self.is_local:
                from milvus_lite.server_manager import server_manager_instance

                server_manager_instance.release_server(self._url)
