"""A server from the start to a graceful end.

SIGTERM and Ctrl-C close the door: new requests get 503 or no connection, those that have a place
are answered, and the process ends with status 0. A second signal ends it at once.
"""

from __future__ import annotations

import fcntl
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI

from leanet.serve.app import create_app
from leanet.serve.batching import Batcher
from leanet.serve.settings import Settings

CONNECTIONS: Final = 512  # at a time; more get 503
GRACE_SECONDS: Final = 30  # for the answers that are still owed at the end
IDLE_SECONDS: Final = 30  # that an unused connection stays open


class Server(uvicorn.Server):
    """Closes the batcher when it is told to end, and then ends without raising the signal."""

    def __init__(self, app: FastAPI) -> None:
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            ws="none",
            limit_concurrency=CONNECTIONS,
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        super().__init__(config)
        self._batcher: Batcher = app.state.services.batcher

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal shuts the door; a second one does not wait for answers."""
        self._batcher.close()
        self.force_exit = self.should_exit
        self.should_exit = True


def run_server(settings: Settings, tell: Callable[[str], None] = print) -> None:
    """Serve until a signal comes.

    Raises:
        ValueError: another server works on the state, or as `leanet.serve.app.create_app`.
        OSError: the address cannot be had.
    """
    with alone(settings.state), listening(settings.host, settings.port) as door:
        logging.getLogger("python_multipart").setLevel(logging.ERROR)  # a line for every bad form
        app = create_app(settings)
        tell(f"{app.state.services.live.model.run} answers at {address(door)} (Ctrl-C stops)")
        Server(app).run(sockets=[door])
    tell("stopped")


@contextmanager
def alone(state: Path) -> Iterator[None]:
    """Hold the state folder, which is made for one server at a time; the lock ends with the process
    however that ends. Raises ValueError if another one holds it."""
    state.mkdir(parents=True, exist_ok=True)
    with (state / "server.lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another server works on {state}; end it, or give another --state"
            ) from None
        yield


def address(door: socket.socket) -> str:
    """What to type into a browser."""
    host, port = door.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def listening(host: str, port: int) -> socket.socket:
    """Taken before the model is loaded, so that a port in use is known at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        door = socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise OSError(error.errno, error.strerror, f"{host}:{port}") from error
    # asyncio sets it only on sockets whose protocol is named. Without it head and body of an
    # answer are two packets, and the second waits some 40 ms for the first to be acknowledged.
    door.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # those that it accepts inherit it
    return door
