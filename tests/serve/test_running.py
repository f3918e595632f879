from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from leanet.records import Prediction
from leanet.serve.app import make_app
from leanet.serve.running import Server, address, alone, listening
from leanet.serve.services import Services

Png = Callable[..., bytes]


class Held:
    """A detector that answers when it is let."""

    img_size = 16

    def __init__(self) -> None:
        self.go = threading.Event()
        self.num_judged = 0

    def __call__(self, image: torch.Tensor) -> Prediction:
        assert self.go.wait(10)
        self.num_judged += len(image)
        return Prediction(image.mean(dim=(1, 2, 3)))


class Running(NamedTuple):
    server: Server
    port: int
    services: Services
    thread: threading.Thread


@contextmanager
def running(services: Services) -> Iterator[Running]:
    """A server with a real socket in a thread, where signals do not reach it."""
    with listening("127.0.0.1", 0) as door:
        server, port = Server(make_app(services)), door.getsockname()[1]
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]})
        thread.start()
        until(lambda: server.started)
        try:
            yield Running(server, port, services, thread)
        finally:
            server.handle_exit(signal.SIGTERM, None)
            thread.join(20)
            assert not thread.is_alive()


@pytest.fixture
def serving(
    services_over: Callable[..., Services], make_model: Callable[..., Any]
) -> Iterator[Callable[..., Running]]:
    """serving(detector): a server in a thread until the end of the test."""
    with ExitStack() as stack:
        yield lambda detector=None, **options: stack.enter_context(
            running(services_over(make_model(detector), **options))
        )


def ask(port: int, data: bytes = b"", path: str = "/predict") -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("POST", path, data, {"Content-Type": "image/png"})
    answer = connection.getresponse()
    body = json.loads(answer.read())
    connection.close()
    return answer.status, body


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_those_inside_are_answered_at_the_end_and_then_the_door_is_shut(
    serving: Callable[..., Running], png: Png
) -> None:
    held = Held()
    one = serving(held)
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(ask(one.port, png())[0])) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    until(lambda: one.services.batcher.taken == 3)
    one.server.handle_exit(signal.SIGTERM, None)
    held.go.set()
    for thread in (*threads, one.thread):
        thread.join(20)
    assert statuses == [200, 200, 200]
    with pytest.raises(OSError):
        ask(one.port, png())


def test_a_second_signal_does_not_wait(serving: Callable[..., Running], png: Png) -> None:
    one = serving(Held())
    one.server.handle_exit(signal.SIGINT, None)
    assert not one.server.force_exit
    one.server.handle_exit(signal.SIGINT, None)
    assert one.server.force_exit


def test_a_client_that_goes_away_leaves_its_place(
    serving: Callable[..., Running], png: Png
) -> None:
    held = Held()
    one = serving(held, max_batch=1)
    first = threading.Thread(target=ask, args=(one.port, png()))
    first.start()
    until(lambda: one.services.batcher.taken == 1)
    gone = http.client.HTTPConnection("127.0.0.1", one.port)
    gone.request("POST", "/predict", png(), {"Content-Type": "image/png"})
    until(lambda: one.services.batcher.taken == 2)
    gone.close()
    until(lambda: one.services.batcher.taken == 1)
    held.go.set()
    first.join(10)
    until(lambda: one.services.batcher.taken == 0)
    assert held.num_judged == 1


def test_a_body_that_is_refused_is_not_waited_for(serving: Callable[..., Running]) -> None:
    """The answer comes although the announced bytes never do."""
    one = serving(max_bytes=1000)
    with socket.create_connection(("127.0.0.1", one.port), timeout=10) as plain:
        plain.sendall(
            b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\n"
            b"Content-Length: 99999999\r\n\r\n"
        )
        assert plain.recv(100).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "line",
    [
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS client
        b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /%2e%2e/%00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    ],
)
def test_bytes_that_are_no_good_request_get_a_refusal(
    serving: Callable[..., Running], line: bytes
) -> None:
    one = serving()
    with socket.create_connection(("127.0.0.1", one.port), timeout=10) as plain:
        plain.sendall(line)
        assert plain.recv(100).startswith(b"HTTP/1.1 4")
    assert ask(one.port)[0] == 400


def test_a_port_in_use_is_said_at_once(serving: Callable[..., Running]) -> None:
    one = serving()
    with pytest.raises(OSError) as caught:
        listening("127.0.0.1", one.port)
    assert caught.value.filename == f"127.0.0.1:{one.port}"


def test_an_answer_in_two_packets_does_not_wait_between_them() -> None:
    with listening("127.0.0.1", 0) as door, socket.create_connection(door.getsockname()):
        inside, _ = door.accept()
        with inside:
            assert inside.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_state_folder_is_for_one_server_at_a_time(tmp_path: Path) -> None:
    with alone(tmp_path / "state"), pytest.raises(ValueError, match="another server works on"):
        alone(tmp_path / "state").__enter__()
    with alone(tmp_path / "state"):
        pass


def test_the_address_can_be_typed_into_a_browser() -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        assert address(door) == f"http://127.0.0.1:{door.getsockname()[1]}/"


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_with_status_0(
    lea_run: Path, tmp_path: Path, png: Png, sign: signal.Signals
) -> None:
    words = ["serve", str(lea_run), "--port", "0", "--state", str(tmp_path / "state")]
    process = subprocess.Popen(
        [sys.executable, "-m", "leanet", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "answers at http://127.0.0.1:" in line, line
        port = int(line.partition("127.0.0.1:")[2].partition("/")[0])
        until(lambda: ask(port, png())[0] == 200)
        process.send_signal(sign)
        output, _ = process.communicate(timeout=30)
        assert (process.returncode, output) == (0, "stopped\n")
    finally:
        process.kill()
        process.wait()
