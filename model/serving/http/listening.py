"""The socket that a server listens on."""

from __future__ import annotations

import socket


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens there, 0 taking a free port; its connections send at once.

    asyncio sets TCP_NODELAY only on sockets that name their protocol, which those of
    `socket.create_server` do not: the end of an answer would wait for the client's word of its
    beginning, 40 ms.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server((host, port), family=family)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening
