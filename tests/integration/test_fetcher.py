"""The guarded fetcher and its URL rule, against real servers on 127.0.0.1 that behave as badly as they can."""

import gzip
import logging
import shutil
import socket
import ssl
import subprocess
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import certifi
import pytest

from shared.errors import ImageFetchFailed, ImageTooLarge, UrlRefused
from shared.urls import check_address, check_url
from worker.fetcher import GuardedFetcher

PUBLIC_ADDRESS = "93.184.216.34"
LIMIT_BYTES = 1_000_000
MIB = 1024 * 1024

Handle = Callable[[BaseHTTPRequestHandler], None]


class Site:
    """A real HTTP server: `pages` maps a path to what answers it; `requests` lists path, headers and body."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.pages: dict[str, Handle] = {}
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.is_closing = threading.Event()
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                site.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                with suppress(OSError):  # the client hung up, as it should on the worst of these pages
                    site.pages[self.path.partition("?")[0]](self)

            do_POST = do_GET

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # a refused handshake

        self.server = Server(("127.0.0.1", 0), Handler)
        if tls is not None:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = int(self.server.server_address[1])
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def serve(self, path: str, body: bytes = b"", status: int = 200, delay_seconds: float = 0, **headers: str) -> str:
        def page(request: BaseHTTPRequestHandler) -> None:
            self.is_closing.wait(delay_seconds)
            request.send_response(status)
            for name, value in {"content-length": str(len(body)), **headers}.items():
                request.send_header(name.replace("_", "-"), value)
            request.end_headers()
            request.wfile.write(body)

        self.pages[path] = page
        return self.url(path)

    def serve_raw(self, path: str, *parts: bytes, forever: bytes = b"", drip: bytes | None = None) -> str:
        """Answer with bytes that need not be HTTP, then with `forever`, or slowly with `drip`, until the test ends."""

        def page(request: BaseHTTPRequestHandler) -> None:
            request.close_connection = True
            for part in parts:
                request.wfile.write(part)
            while forever and not self.is_closing.is_set():
                request.wfile.write(forever)
            while drip is not None and not self.is_closing.wait(0.05):
                request.wfile.write(drip)

        self.pages[path] = page
        return self.url(path)

    def __enter__(self) -> "Site":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_closing.set()
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


@pytest.fixture
def fetcher() -> GuardedFetcher:
    return GuardedFetcher(allow_private=True, timeout_seconds=5)


@pytest.fixture
def guarded() -> GuardedFetcher:
    return GuardedFetcher(allow_private=False, timeout_seconds=5)


class Internet:
    """Names and one public address, laid over the operating system's: PUBLIC_ADDRESS leads to a local port."""

    def __init__(self) -> None:
        self.names: dict[str, list[list[str]]] = {}
        self.port = 0
        self.connected: list[str] = []

    def resolve(self, host: str) -> list[str]:
        """Return what the name leads to now; each list but the last is told once."""
        told = self.names.get(host, [[host]])
        return told.pop(0) if len(told) > 1 else told[0]


@pytest.fixture
def internet(monkeypatch: pytest.MonkeyPatch) -> Internet:
    internet = Internet()
    real_getaddrinfo, real_connect = socket.getaddrinfo, socket.socket.connect

    def getaddrinfo(host: str, *args: Any, **options: Any) -> Any:
        return [entry for name in internet.resolve(host) for entry in real_getaddrinfo(name, *args, **options)]

    def connect(self: socket.socket, address: Any) -> None:
        internet.connected.append(address[0])
        real_connect(self, ("127.0.0.1", internet.port) if address[0] == PUBLIC_ADDRESS else address)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(socket.socket, "connect", connect)
    return internet


@pytest.mark.parametrize(
    "url",
    [
        "ftp://shop.example/a.jpg",
        "file:///etc/passwd",
        "data:image/png;base64,AAAA",
        "gopher://shop.example/",
        "//shop.example/a.jpg",
        "shop.example/a.jpg",
        "",
        "https://",
        "https:///a.jpg",
        "http://shop.example:0/",
        "http://shop.example:99999/",
        "http://user:word@shop.example/",
        "http://user@shop.example/",
        "http://shop.example/a b.jpg",
        " http://shop.example/",
        "http://shop.example/\r\nHost: other.example",
        "http://shop.example\\@127.0.0.1/",
        "http://a..example/",
        f"http://{'a' * 64}.example/",
        "http://[::1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0x7f.0x1/",
        "http://0177.0.0.1/",
        "http://127.1/",
        "http://127.0.0.01/",
        "http://①②⑦.⓪.⓪.①/",
        "http://[fe80::1%25lo]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://100.100.100.200/",
        "http://168.63.129.16/",
        "http://[fd00:ec2::254]/",
        "http://[::ffff:169.254.169.254]/",
        "http://0.0.0.0/",
        "http://[::]/",
        "http://255.255.255.255/",
        "http://224.0.0.1/",
    ],
)
def test_a_url_that_is_never_called_is_refused_even_where_private_ones_are_allowed(url: str) -> None:
    with pytest.raises(UrlRefused) as refusal:
        check_url(url, allow_private=True)
    assert "word" not in refusal.value.detail.replace("password", "")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://127.0.0.1./",
        "http://%31%32%37.0.0.1/",
        "http://127.8.8.8:8000/",
        "http://10.0.0.1/",
        "http://172.31.255.255/",
        "http://192.168.1.1/",
        "http://100.64.0.1/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
        "http://[fc00::1]/",
        "http://localhost/",
        "http://LOCALHOST:6379/",
        "http://localhost./",
        "http://shop.localhost/",
        "http://redis:6379/",
        "http://printer.local/",
        "http://metadata.google.internal/",
    ],
)
def test_a_private_url_is_refused_unless_it_is_allowed(url: str) -> None:
    with pytest.raises(UrlRefused, match="LOOKALIKE_ALLOW_PRIVATE_URLS"):
        check_url(url, allow_private=False)
    check_url(url, allow_private=True)


@pytest.mark.parametrize(
    "url",
    [
        "https://shop.example/a.jpg?token=x#y",
        "HTTP://SHOP.EXAMPLE:8080/a.jpg",
        "https://bücher.example/hülle.jpg",
        "https://cdn_1.shop.example./",
        "https://93.184.216.34/",
        "https://[2606:4700::1111]:8443/",
        "https://localhost.example/",
    ],
)
def test_a_public_url_is_allowed(url: str) -> None:
    check_url(url, allow_private=False)


@pytest.mark.parametrize(
    "address",
    [
        "0.1.2.3", "169.254.0.1", "192.0.0.8", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.51.100.1",
        "203.0.113.1", "224.0.0.1", "233.252.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255",
        "::", "::7f00:1", "::ffff:0:7f00:1", "64:ff9b::7f00:1", "64:ff9b:1::1", "100::1", "2001::7f00:1", "2001:20::1",
        "2001:db8::1", "2002:7f00:1::", "3fff::1", "4000::1", "5f00::1", "fe80::1", "fec0::1", "ff02::1", "ff0e::1",
    ],
)  # fmt: skip
@pytest.mark.parametrize("allow_private", [True, False])
def test_an_address_that_is_neither_public_nor_private_is_refused(address: str, allow_private: bool) -> None:
    with pytest.raises(UrlRefused):
        check_address(ip_address(address), allow_private=allow_private)


def test_an_image_is_fetched_as_it_is(site: Site, fetcher: GuardedFetcher) -> None:
    body = bytes(range(256)) * 1000
    url = site.serve("/a.jpg", body)
    assert fetcher.get(f"{url}?size=xl", LIMIT_BYTES) == body
    path, headers, _ = site.requests[0]
    assert path == "/a.jpg?size=xl"
    assert headers["host"] == f"127.0.0.1:{site.port}"


def test_an_image_of_exactly_the_limit_is_fetched_and_one_byte_more_is_not(site: Site, fetcher: GuardedFetcher) -> None:
    url = site.serve("/a.jpg", b"x" * 1000)
    assert len(fetcher.get(url, 1000)) == 1000
    with pytest.raises(ImageTooLarge, match="999 bytes"):
        fetcher.get(url, 999)


def test_an_image_without_end_is_too_large(site: Site, fetcher: GuardedFetcher) -> None:
    url = site.serve_raw("/a.jpg", b"HTTP/1.1 200 OK\r\n\r\n", forever=b"x" * 65536)
    with pytest.raises(ImageTooLarge):
        fetcher.get(url, LIMIT_BYTES)


def test_gzip_and_chunks_are_undone(site: Site, fetcher: GuardedFetcher) -> None:
    body = b"shoe" * 10_000
    packed = gzip.compress(body)
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n"
    url = site.serve_raw("/a.jpg", head, b"%x\r\n%s\r\n" % (len(packed), packed), b"0\r\n\r\n")
    assert fetcher.get(url, LIMIT_BYTES) == body


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "gzip, gzip"])
def test_a_compression_bomb_is_too_large_and_takes_no_memory(
    site: Site, fetcher: GuardedFetcher, encoding: str
) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS if encoding == "deflate" else zlib.MAX_WBITS | 16)
    bomb = b"".join(packer.compress(bytes(MIB)) for _ in range(200)) + packer.flush()
    if encoding == "gzip, gzip":
        bomb = gzip.compress(bomb)
    url = site.serve("/a.jpg", bomb, content_encoding=encoding)
    tracemalloc.start()
    try:
        with pytest.raises(ImageTooLarge):
            fetcher.get(url, LIMIT_BYTES)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 8 * MIB


def test_a_chunk_size_without_end_takes_no_memory(site: Site, fetcher: GuardedFetcher) -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    url = site.serve_raw("/a.jpg", head, forever=b"0" * 65536)
    tracemalloc.start()
    try:
        with pytest.raises(ImageFetchFailed):
            fetcher.get(url, LIMIT_BYTES)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 8 * MIB


@pytest.mark.parametrize(
    ("start", "drip"),
    [
        (b"", b""),
        (b"HTTP/1.1 200 OK\r\nx: ", b"y"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n", gzip.compress(b"")),
    ],
    ids=["silence", "header", "interim answers", "known length", "no length", "chunks", "empty gzip members"],
)
def test_a_server_that_drips_is_cut_off_at_the_deadline(site: Site, start: bytes, drip: bytes) -> None:
    url = site.serve_raw("/a.jpg", start, drip=drip)
    started = time.monotonic()
    with pytest.raises(ImageFetchFailed, match=r"within 0\.5 s"):
        GuardedFetcher(allow_private=True, timeout_seconds=0.5).get(url, LIMIT_BYTES)
    assert 0.4 < time.monotonic() - started < 3


def test_a_tls_handshake_that_never_comes_is_cut_off_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(ImageFetchFailed, match=r"within 0\.5 s"):
            GuardedFetcher(allow_private=True, timeout_seconds=0.5).get(
                f"https://127.0.0.1:{silent.getsockname()[1]}/", LIMIT_BYTES
            )
        assert time.monotonic() - started < 3


def test_redirects_share_one_deadline(site: Site) -> None:
    for hop in range(3):
        site.serve(f"/{hop}", status=302, delay_seconds=0.3, location=f"/{hop + 1}")
    site.serve("/3", b"late")
    with pytest.raises(ImageFetchFailed, match=r"within 0\.5 s"):
        GuardedFetcher(allow_private=True, timeout_seconds=0.5).get(site.url("/0"), LIMIT_BYTES)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files in /proc")
def test_nothing_is_left_behind_by_calls(site: Site) -> None:
    fetcher = GuardedFetcher(allow_private=True, timeout_seconds=60)
    threads = set(threading.enumerate())
    good, bad = site.serve("/a.jpg", b"x"), site.serve("/gone.jpg", status=404)
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(10):
        fetcher.get(good, LIMIT_BYTES)
        with pytest.raises(ImageFetchFailed):
            fetcher.get(bad, LIMIT_BYTES)
    deadline = time.monotonic() + 5
    while (own := set(threading.enumerate()) - threads) and time.monotonic() < deadline:
        for thread in own:
            thread.join(0.1)
    assert not own
    assert len(list(Path("/proc/self/fd").iterdir())) <= descriptors


def test_three_redirects_are_followed_and_a_fourth_is_not(site: Site, fetcher: GuardedFetcher) -> None:
    for hop, status in enumerate([301, 302, 303, 308]):
        site.serve(f"/{hop}", status=status, location=f"/{hop + 1}")
    site.serve("/4", b"found")
    assert fetcher.get(site.url("/1"), LIMIT_BYTES) == b"found"
    with pytest.raises(ImageFetchFailed, match="more than 3 times"):
        fetcher.get(site.url("/0"), LIMIT_BYTES)


def test_a_redirect_loop_ends(site: Site, fetcher: GuardedFetcher) -> None:
    url = site.serve("/a", status=302, location="/a")
    with pytest.raises(ImageFetchFailed, match="more than 3 times"):
        fetcher.get(url, LIMIT_BYTES)
    assert len(site.requests) == 4


def test_the_body_of_a_redirect_is_not_read(site: Site, fetcher: GuardedFetcher) -> None:
    url = site.serve_raw("/a", b"HTTP/1.1 302 Found\r\nlocation: /b\r\n\r\n", forever=b"x" * 65536)
    site.serve("/b", b"found")
    assert fetcher.get(url, LIMIT_BYTES) == b"found"


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://shop.example/",
        "http://169.254.169.254/latest/meta-data/iam?token=SECRET",
        "http://user:SECRET@127.0.0.1/",
        "//169.254.169.254/",
        "http://2852039166/",
    ],
)
def test_a_redirect_is_checked_like_the_first_url(site: Site, fetcher: GuardedFetcher, location: str) -> None:
    url = site.serve("/a", status=302, location=location)
    with pytest.raises(UrlRefused, match="redirects to") as refusal:
        fetcher.get(url, LIMIT_BYTES)
    assert "SECRET" not in refusal.value.detail


@pytest.mark.parametrize("url", ["ftp://127.0.0.1:{port}/", "http://user:word@127.0.0.1:{port}/"])
def test_a_call_begins_with_the_check_of_its_url(site: Site, fetcher: GuardedFetcher, url: str) -> None:
    with pytest.raises(UrlRefused):
        fetcher.get(url.format(port=site.port), LIMIT_BYTES)
    with pytest.raises(UrlRefused):
        fetcher.post(url.format(port=site.port), b"{}", {})
    assert site.requests == []


@pytest.mark.parametrize("location", ["http://[::1", "/\xff\xfe"])
def test_a_redirect_to_nonsense_fails(site: Site, fetcher: GuardedFetcher, location: str) -> None:
    with pytest.raises((ImageFetchFailed, UrlRefused), match="redirects to"):
        fetcher.get(site.serve("/a", status=302, location=location), LIMIT_BYTES)


@pytest.mark.parametrize("status", [304, 400, 401, 404, 410, 500, 503])
def test_a_status_other_than_2xx_fails_and_is_told(site: Site, fetcher: GuardedFetcher, status: int) -> None:
    with pytest.raises(ImageFetchFailed, match=f"answered {status}"):
        fetcher.get(site.serve("/a.jpg", status=status), LIMIT_BYTES)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 5\r\n\r\nplain",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 1000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000 + b"\r\n\r\n",
    ],
    ids=["nothing", "other protocol", "cut short", "cut chunk", "not gzip", "many headers", "long header"],
)
def test_a_broken_answer_fails(site: Site, fetcher: GuardedFetcher, answer: bytes) -> None:
    with pytest.raises(ImageFetchFailed, match="broke off"):
        fetcher.get(site.serve_raw("/a.jpg", answer), LIMIT_BYTES)


def test_a_closed_port_fails(fetcher: GuardedFetcher) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ImageFetchFailed, match="takes no connection"):
        fetcher.get(f"http://127.0.0.1:{port}/", LIMIT_BYTES)


@pytest.mark.parametrize("allow_private", [True, False])
def test_a_name_that_does_not_exist_fails(allow_private: bool) -> None:
    with pytest.raises(ImageFetchFailed, match="can't be resolved"):
        GuardedFetcher(allow_private, timeout_seconds=20).get("http://no-such-shop.invalid/a.jpg", LIMIT_BYTES)


def test_a_server_without_tls_fails(site: Site, fetcher: GuardedFetcher) -> None:
    with pytest.raises(ImageFetchFailed, match="TLS"):
        fetcher.get(site.url("/").replace("http:", "https:"), LIMIT_BYTES)


def test_loopback_is_refused_and_never_connected_to(site: Site, guarded: GuardedFetcher, internet: Internet) -> None:
    for url in (site.serve("/a.jpg", b"x"), f"http://localhost:{site.port}/a.jpg", f"http://[::1]:{site.port}/"):
        with pytest.raises(UrlRefused):
            guarded.get(url, LIMIT_BYTES)
        with pytest.raises(UrlRefused):
            guarded.post(url, b"{}", {})
    assert site.requests == []
    assert internet.connected == []


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "169.254.169.254", "0.0.0.0", "240.0.0.1", "168.63.129.16", "192.0.0.192", "100.64.0.1",
     "::1", "::", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "fe80::1", "fec0::1", "fd00:ec2::254", "2002:7f00:1::",
     "4000::1"],
)  # fmt: skip
def test_a_public_name_of_an_address_that_is_not_public_is_refused(
    guarded: GuardedFetcher, internet: Internet, address: str
) -> None:
    internet.names["shop.example"] = [[address]]
    with pytest.raises(UrlRefused) as refusal:
        guarded.get("http://shop.example/a.jpg", LIMIT_BYTES)
    assert address not in refusal.value.detail
    assert internet.connected == []


def test_requests_hardened_is_asked_as_well(
    guarded: GuardedFetcher, internet: Internet, caplog: pytest.LogCaptureFixture
) -> None:
    internet.names["shop.example"] = [["10.0.0.1"]]
    with pytest.raises(UrlRefused):
        guarded.get("http://shop.example/a.jpg", LIMIT_BYTES)
    assert [record.name for record in caplog.records] == ["requests_hardened.ip_filter"]


def test_a_metadata_address_behind_a_name_is_refused_where_private_ones_are_allowed(
    fetcher: GuardedFetcher, internet: Internet
) -> None:
    internet.names["metadata.google.internal"] = [["127.0.0.1", "169.254.169.254"]]
    with pytest.raises(UrlRefused):
        fetcher.get("http://metadata.google.internal/", LIMIT_BYTES)
    assert internet.connected == []


def test_the_guard_connects_to_the_address_that_it_checked(
    site: Site, guarded: GuardedFetcher, internet: Internet
) -> None:
    site.serve("/a.jpg", b"public")
    internet.port = site.port
    # DNS rebinding: public when it is checked, loopback for whoever asks again.
    internet.names["shop.example"] = [[PUBLIC_ADDRESS], ["127.0.0.1"]]
    assert guarded.get("http://shop.example/a.jpg", LIMIT_BYTES) == b"public"
    assert internet.connected == [PUBLIC_ADDRESS]
    assert site.requests[0][1]["host"] == "shop.example"
    with pytest.raises(UrlRefused):
        guarded.get("http://shop.example/a.jpg", LIMIT_BYTES)
    assert internet.connected == [PUBLIC_ADDRESS]


@pytest.mark.parametrize(
    "location", ["http://127.0.0.1/admin", "http://localhost/", "http://inner.example/", "http://[::1]/"]
)
def test_a_public_server_can_not_redirect_into_the_private_network(
    site: Site, guarded: GuardedFetcher, internet: Internet, location: str
) -> None:
    site.serve("/a.jpg", status=302, location=location)
    internet.port = site.port
    internet.names = {"shop.example": [[PUBLIC_ADDRESS]], "inner.example": [["10.0.0.7"]]}
    with pytest.raises(UrlRefused):
        guarded.get("http://shop.example/a.jpg", LIMIT_BYTES)
    assert internet.connected == [PUBLIC_ADDRESS]


def test_the_next_address_is_tried_where_the_first_takes_no_connection(
    site: Site, fetcher: GuardedFetcher, internet: Internet
) -> None:
    site.serve("/a.jpg", b"x")
    internet.names["shop.example"] = [["127.0.0.3", "127.0.0.1"]]
    assert fetcher.get(f"http://shop.example:{site.port}/a.jpg", LIMIT_BYTES) == b"x"
    assert internet.connected == ["127.0.0.3", "127.0.0.1"]


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS context and the certificate to trust, good for shop.example alone."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl command to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=shop.example"
    extension = ["-addext", "subjectAltName=DNS:shop.example", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command.split(), *extension], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, certificate


@contextmanager
def tls_site(context: ssl.SSLContext, internet: Internet) -> Iterator[Site]:
    with Site(context) as site:
        internet.port = site.port
        internet.names = {"shop.example": [[PUBLIC_ADDRESS]], "other.example": [[PUBLIC_ADDRESS]]}
        site.serve("/a.jpg", b"secure")
        yield site


@pytest.mark.parametrize("allow_private", [True, False])
def test_tls_is_checked_against_the_name_and_not_the_address(
    tls_server: tuple[ssl.SSLContext, Path], internet: Internet, monkeypatch: pytest.MonkeyPatch, allow_private: bool
) -> None:
    context, certificate = tls_server
    monkeypatch.setattr(certifi, "where", lambda: str(certificate))
    fetcher = GuardedFetcher(allow_private, timeout_seconds=5)
    with tls_site(context, internet) as site:
        assert fetcher.get("https://shop.example/a.jpg", LIMIT_BYTES) == b"secure"
        with pytest.raises(ImageFetchFailed, match=r"certificate of other\.example is not valid"):
            fetcher.get("https://other.example/a.jpg", LIMIT_BYTES)
        assert len(site.requests) == 1


def test_a_tls_server_that_drips_is_cut_off_at_the_deadline(
    tls_server: tuple[ssl.SSLContext, Path], internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, certificate = tls_server
    monkeypatch.setattr(certifi, "where", lambda: str(certificate))
    impatient = GuardedFetcher(allow_private=False, timeout_seconds=0.5)
    with tls_site(context, internet) as site:
        site.serve_raw("/slow.jpg", b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n", drip=b"x")
        started = time.monotonic()
        with pytest.raises(ImageFetchFailed, match=r"within 0\.5 s"):
            impatient.get("https://shop.example/slow.jpg", LIMIT_BYTES)
        assert time.monotonic() - started < 3


def test_a_certificate_of_an_unknown_authority_fails(
    tls_server: tuple[ssl.SSLContext, Path], guarded: GuardedFetcher, internet: Internet
) -> None:
    with tls_site(tls_server[0], internet) as site:
        with pytest.raises(ImageFetchFailed, match=r"self.signed certificate"):
            guarded.get("https://shop.example/a.jpg", LIMIT_BYTES)
        assert site.requests == []


def test_a_post_sends_body_and_headers_and_returns_the_status(site: Site, fetcher: GuardedFetcher) -> None:
    url = site.serve("/hook", b"thanks", status=202)
    assert fetcher.post(url, b'{"a":1}', {"Content-Type": "application/json", "webhook-id": "msg_1"}) == 202
    _, headers, body = site.requests[0]
    assert body == b'{"a":1}'
    assert (headers["content-type"], headers["webhook-id"]) == ("application/json", "msg_1")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_post_follows_no_redirect(site: Site, fetcher: GuardedFetcher, status: int) -> None:
    assert fetcher.post(site.serve("/hook", status=status, location="/other"), b"{}", {}) == status
    assert len(site.requests) == 1


def test_the_answer_to_a_post_is_not_waited_for(site: Site, fetcher: GuardedFetcher) -> None:
    url = site.serve_raw("/hook", b"HTTP/1.1 200 OK\r\n\r\n", drip=b"x")
    started = time.monotonic()
    assert fetcher.post(url, b"{}", {}) == 200
    assert time.monotonic() - started < 3


def test_a_receiver_that_never_reads_is_cut_off_at_the_deadline() -> None:
    impatient = GuardedFetcher(allow_private=True, timeout_seconds=0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(ImageFetchFailed, match=r"within 0\.5 s"):
            impatient.post(url, bytes(32 * MIB), {})


def test_proxies_and_passwords_of_the_environment_are_not_used(
    site: Site, fetcher: GuardedFetcher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login operator password SECRET\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/")
    assert fetcher.get(site.serve("/a.jpg", b"x"), LIMIT_BYTES) == b"x"
    assert "authorization" not in site.requests[0][1]


def test_logs_and_errors_hold_no_query(
    site: Site, fetcher: GuardedFetcher, internet: Internet, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    internet.names["shop.example"] = [["10.0.0.1"]]
    site.serve_raw("/odd", b"HTTP/1.1 200 OK\r\n no header\r\ncontent-length: 0\r\n\r\n")
    site.serve_raw("/broken", b"")
    site.serve("/gone", status=404)
    site.serve("/moved", status=302, location="ftp://shop.example/?token=SECRET")
    guarded = GuardedFetcher(allow_private=False, timeout_seconds=5)
    assert fetcher.get(site.url("/odd?token=SECRET"), LIMIT_BYTES) == b""
    for call, url in [
        (fetcher, site.url("/broken?token=SECRET")),
        (fetcher, site.url("/gone?token=SECRET")),
        (fetcher, site.url("/moved?token=SECRET")),
        (fetcher, site.url("/a?token=SECRET").replace("http:", "https:")),
        (fetcher, "http://127.0.0.1:9/?token=SECRET"),
        (guarded, "http://shop.example/?token=SECRET"),
    ]:
        with pytest.raises((ImageFetchFailed, UrlRefused)) as failure:
            call.get(url, LIMIT_BYTES)
        assert "SECRET" not in failure.value.detail
        logging.getLogger("worker").error("failed", exc_info=failure.value)
    assert "failed" in caplog.text
    assert "SECRET" not in caplog.text


def test_threads_share_one_fetcher(site: Site, fetcher: GuardedFetcher) -> None:
    bodies = {f"/{n}": f"body {n} ".encode() * 5000 for n in range(40)}
    for path, body in bodies.items():
        site.serve(path, body)
    with ThreadPoolExecutor(8) as pool:
        fetched = dict(
            zip(bodies, pool.map(lambda path: fetcher.get(site.url(path), LIMIT_BYTES), bodies), strict=True)
        )
    assert fetched == bodies
