"""The one place through which every client-named URL is called: images to fetch, callbacks to post.

A client may name any URL, so each answer is assumed hostile: where a connection goes is checked when it is made
(shared/urls.py has the rule), and time, bytes and redirects are bounded. docs/decisions/0005 tells why it is so.
"""

import logging
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urljoin

import certifi
import requests
from requests_hardened.ip_filter import InvalidIPAddress
from urllib3.exceptions import HTTPError, NewConnectionError
from urllib3.util import parse_url
from urllib3.util.ssl_ import create_urllib3_context
from urllib3.util.ssl_match_hostname import CertificateError

from shared.errors import ImageFetchFailed, ImageTooLarge, LookalikeError, UrlRefused
from shared.urls import NOT_PUBLIC, check_url
from worker.guarded_connections import Deadline, Guard, GuardedAdapter, PublicOnlyAdapter

MAX_REDIRECTS = 3
CHUNK_BYTES = 64 * 1024
HEADERS = {"User-Agent": "Lookalike", "Accept": "*/*", "Accept-Encoding": "identity"}


class GuardedFetcher:
    """Calls client-named URLs without trusting them. Threads may share one: calls share the CAs alone.

    Follows no proxy, netrc or CA setting of the environment, sends no cookie, and takes any port.
    """

    def __init__(self, allow_private: bool, timeout_seconds: float) -> None:
        """Args:
        allow_private: whether loopback and private networks may be called.
        timeout_seconds: longest call, redirects included. Resolving a name counts, but can't be cut short.
        """
        self._allow_private = allow_private
        self._timeout_seconds = timeout_seconds
        self._tls = create_urllib3_context()
        self._tls.load_verify_locations(certifi.where())
        # Below that, urllib3 logs URLs with their query, and clients put tokens in them.
        logging.getLogger("urllib3").setLevel(logging.ERROR)

    def get(self, url: str, max_bytes: int) -> bytes:
        """Fetch an image.

        Args:
            url: http or https; up to three redirects are followed, each checked like the first URL.
            max_bytes: most bytes of the answer, counted after gzip or deflate are undone.

        Raises:
            UrlRefused: the URL, or one that it redirects to, is not one that this server may call.
            ImageFetchFailed: no name, connection, TLS or 2xx answer in time.
            ImageTooLarge: more than max_bytes.
        """
        with Deadline(self._timeout_seconds) as deadline:
            for _ in range(MAX_REDIRECTS + 1):
                with self._answer("GET", url, deadline) as answer:
                    if not answer.is_redirect:
                        return _read_body(answer, max_bytes)
                    url = self._redirect_target(url, answer)
        raise ImageFetchFailed(f"{_host(url)} redirects more than {MAX_REDIRECTS} times. Name the image's final URL.")

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Send a callback and return the status of the answer, whose body is not read. Follows no redirect.

        Raises:
            UrlRefused: the URL is not one that this server may call.
            ImageFetchFailed: no name, connection, TLS or answer in time. Any status is an answer.
        """
        with (
            Deadline(self._timeout_seconds) as deadline,
            self._answer("POST", url, deadline, body=body, headers=headers) as answer,
        ):
            return answer.status_code

    @contextmanager
    def _answer(
        self,
        method: str,
        url: str,
        deadline: Deadline,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[requests.Response]:
        check_url(url, allow_private=self._allow_private)
        guard = Guard(deadline, self._allow_private, self._tls)
        adapter = (
            GuardedAdapter(guard)
            if self._allow_private
            else PublicOnlyAdapter(guard, is_https_proto=parse_url(url).scheme == "https")
        )
        try:
            # Without a Session: it would read a redirect's whole body, and follow the environment's proxies and netrc.
            request = requests.Request(method, url, headers={**HEADERS, **(headers or {})}, data=body).prepare()
            with adapter.send(request, timeout=deadline.seconds) as answer:
                yield answer
                # A cut looks like the end of the headers, or of a body that told no length.
                deadline.check()
        except (requests.RequestException, HTTPError, TimeoutError) as error:
            # `from None`: the texts of these errors hold the URL with its query.
            raise _named_failure(error, _host(url), deadline) from None
        finally:
            adapter.close()

    def _redirect_target(self, url: str, answer: requests.Response) -> str:
        try:
            target = urljoin(url, answer.headers["location"].encode("latin-1").decode())
            check_url(target, allow_private=self._allow_private)
        except ValueError:
            raise ImageFetchFailed(f"{_host(url)} redirects to what is not a URL. Name the final URL.") from None
        except UrlRefused as refusal:
            raise UrlRefused(f"{_host(url)} redirects to a URL that is refused. {refusal.detail}") from None
        return target


def _read_body(answer: requests.Response, max_bytes: int) -> bytes:
    host = _host(str(answer.url))
    if not answer.ok or answer.status_code >= 300:
        raise ImageFetchFailed(f"{host} answered {answer.status_code}. Check that the URL is right and public.")
    body = bytearray()
    # Not iter_content: in a chunked answer it would read a line without end into memory.
    while part := answer.raw.read(CHUNK_BYTES, decode_content=True):
        body += part
        if len(body) > max_bytes:
            raise ImageTooLarge(f"The image at {host} has more than {max_bytes} bytes. Name a smaller one.")
    return bytes(body)


def _named_failure(error: BaseException, host: str, deadline: Deadline) -> LookalikeError:
    if isinstance(error, InvalidIPAddress):
        return UrlRefused(NOT_PUBLIC)
    causes = list(_causes(error))
    if deadline.has_passed or any(isinstance(cause, TimeoutError) for cause in causes):
        return ImageFetchFailed(f"{host} did not answer in full within {deadline.seconds:g} s. Try again later.")
    for cause in reversed(causes):
        match cause:
            case socket.gaierror():
                return ImageFetchFailed(f"The name of {host} can't be resolved. Check the URL.")
            case ssl.SSLCertVerificationError():
                return ImageFetchFailed(f"The TLS certificate of {host} is not valid: {cause.verify_message}.")
            case CertificateError():
                return ImageFetchFailed(f"The TLS certificate of {host} is not valid: it names another host.")
            case ssl.SSLError():
                return ImageFetchFailed(f"{host} speaks no TLS that this server does: {cause.reason}.")
            case NewConnectionError():
                return ImageFetchFailed(f"{host} takes no connection. Check the URL, or try again later.")
    return ImageFetchFailed(f"{host} broke off, or its answer is not valid HTTP. Try again later.")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that it wraps, as far as requests and urllib3 say so."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        # Not __context__: it leads on to whatever our caller was handling.
        linked = (cause.__cause__, getattr(cause, "reason", None), *cause.args)
        cause = next((link for link in linked if isinstance(link, BaseException)), None)


def _host(url: str) -> str:
    """Return host and port: all of a URL that may stand in logs and errors."""
    return parse_url(url).netloc or "the host"
