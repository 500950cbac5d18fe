"""Names and addresses of a chaos run: Python imports this at the start of every process that has it on PYTHONPATH.

The processes are the real ones and so is their guard; what is laid over is the operating system's answer to "where does
this name lead", as an attacker who owns a domain decides it, and the way to one public address.

    *.shop.example      a public address, which leads to the receiver of the run
    rebound*.example    that address when it is asked for the first time, 127.0.0.1 from then on
    private.example, mapped.example, metadata.example    what an attacker would name

A connection to any other address that is not loopback leads to the trap, which counts it: nothing leaves the machine.
"""

import os
import socket
from ipaddress import ip_address
from typing import Any

PUBLIC_ADDRESS = "93.184.216.34"
NAMES = {"private.example": "127.0.0.1", "mapped.example": "::ffff:127.0.0.1", "metadata.example": "169.254.169.254"}

_asked: set[str] = set()
_getaddrinfo, _connect = socket.getaddrinfo, socket.socket.connect
_receiver = ("127.0.0.1", int(os.environ["CHAOS_RECEIVER_PORT"]))
_trap = ("127.0.0.1", int(os.environ["CHAOS_TRAP_PORT"]))


def _resolve(host: Any) -> Any:
    if not isinstance(host, str) or not host.endswith(".example"):
        return host
    if host.startswith("rebound"):
        is_first = host not in _asked
        _asked.add(host)
        return PUBLIC_ADDRESS if is_first else "127.0.0.1"
    return NAMES.get(host, PUBLIC_ADDRESS)


def _lookup(host: Any, *arguments: Any, **options: Any) -> Any:
    return _getaddrinfo(_resolve(host), *arguments, **options)


def _lead(self: socket.socket, address: Any) -> None:
    if self.family in (socket.AF_INET, socket.AF_INET6):
        if address[0] == PUBLIC_ADDRESS:
            address = _receiver
        elif not _is_here(address[0]):
            address = _trap
    _connect(self, address)


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    address = ip_address(host)
    return address.is_loopback or host == "::ffff:127.0.0.1"


socket.getaddrinfo = _lookup
socket.socket.connect = _lead  # type: ignore[method-assign,assignment]
