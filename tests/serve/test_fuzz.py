"""Requests that nobody should send: each gets an answer that is no 5xx and tells no secrets."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from starlette.testclient import TestClient

from leanet.serve.app import create_app
from leanet.serve.retrain import Retraining
from leanet.serve.settings import make_settings

EXAMPLES, MANY = 120, int(os.environ.get("LEANET_FUZZ", "10000"))
LIMITS = {"max_bytes": 60_000, "max_batch_bytes": 100_000, "max_pixels": 200_000, "max_files": 4}
PRIVATE = (b"Traceback", b"/tmp/", b"/home/", b"site-packages", b'File "', b"leanet/serve")
MOST_GROWTH = 80e6  # bytes, from a fifth of the way to the end: steps of an allocator, no more
STILL = 1e6  # bytes, in the quietest quarter: what leaks grows in every one
ROUTES = (
    "/predict",
    "/predict/batch",
    "/health",
    "/metrics",
    "/login",
    "/logout",
    "/openapi.json",
    "/",
    "/static/review.js",
    "/static/",
    "/review/state",
    "/review/gallery",
    "/review/labels",
    "/review/undo",
    "/review/scores",
    "/review/threshold",
    "/review/unreadable",
    "/review/upload",
    "/review/retrain",
    "/review/retrain/cancel",
    "/review/models",
    "/review/compare",
    "/review/switch",
    "/review/roll_back",
    "/drift",
    "/drift/status",
    "/drift/reset",
    "/drift/accept",
    "/drift/training",
    "/no/such/page",
)
TRICKS = (
    "../../etc/passwd",
    "..%2f..%2fetc%2fpasswd",
    "%2e%2e/%2e%2e/card.json",
    "....//....//etc/passwd",
    "..\\..\\windows\\win.ini",
    "/etc/passwd",
    "C:\\a.png",
    "a\x00.png",
    "%00",
    "CON",
    "a" * 3000,
    "\u202egnp.a",
    "\N{PILE OF POO}.png",
    "'; DROP TABLE images; --",
    "<script>alert(1)</script>",
    "{{7*7}}",
    "%",
    "%zz",
    "~root",
    "original",
    "001",
    "nan",
    "-1",
    "99999999999999999999999999",
)


def packed(kind: str, mode: str = "RGB", side: int = 12, **options: Any) -> bytes:
    values = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).convert(mode).save(buffer, format=kind, **options)
    return buffer.getvalue()


def png_of(width: int, height: int, data: bytes, *, bits: int = 8, color: int = 2) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 5_000_000))  # unpacks to megabytes
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + text
        + chunk(b"IDAT", data)
        + chunk(b"IEND", b"")
    )


GOOD = [packed(kind) for kind in ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "GIF")]
GOOD += [packed("PNG", mode) for mode in ("L", "P", "RGBA", "1", "LA", "I;16")]
GOOD += [packed("TIFF", mode) for mode in ("CMYK", "F", "I", "YCbCr", "LAB")]
GOOD += [packed("TIFF", compression=name) for name in ("tiff_lzw", "tiff_deflate", "jpeg")]
GOOD.append(
    packed("JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0")
)
KNOWN = [hashlib.sha256(data).hexdigest() for data in GOOD[:3]]
ZEROS = zlib.compress(b"\0" * 3_000_000)
BOMBS = [
    png_of(2**31 - 1, 2**31 - 1, ZEROS),
    png_of(100_000, 100_000, b""),
    png_of(0, 0, b""),
    png_of(1000, 1000, ZEROS),
    png_of(200, 200, ZEROS),  # more rows than announced
    png_of(4, 4, ZEROS, bits=16, color=6),
    png_of(4, 4, b"no zlib", bits=3, color=9),
    b"BM"
    + struct.pack("<IHHIIiiHHI", 54, 0, 0, 54, 40, 2**31 - 1, -(2**31), 1, 24, 0)
    + b"\0" * 20,
    b"II*\0\x08\0\0\0\xff\xff" + b"\0\x01\x04\0\xff\xff\xff\xff\xff\xff\xff\xff" * 40,
    b"PK\x03\x04" + zlib.compress(b"\0" * 1_000_000),
    b"GIF89a\xff\xff\xff\xff\0\0\0",
    b"\xff\xd8\xff\xe0" + b"\xff" * 500,
    b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03\x01\x22\0\x02\x11\x01\x03\x11\x01",
    b"RIFF\xff\xff\xff\xffWEBPVP8X\x0a\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff",
    b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    b"%PDF-1.7",
    b"",
]


IMAGE = (b"Content-Type", b"image/png")


class Asked(NamedTuple):
    """A request as it goes over the wire; the target is escaped."""

    method: str
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


@st.composite
def spoiled(draw: st.DrawFn) -> bytes:
    """A picture that was cut, overwritten, repeated, or never was one."""
    data = bytearray(draw(st.sampled_from(GOOD + BOMBS)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        way = draw(st.sampled_from(["cut", "overwrite", "insert", "repeat", "large"]))
        some = draw(st.binary(min_size=1, max_size=12))
        if way == "cut":
            del data[at:]
        elif way == "overwrite":
            data[at : at + len(some)] = some
        elif way == "insert":
            data[at:at] = some
        elif way == "repeat":
            data += data[at:][:20_000]
        else:
            data[at : at + 4] = b"\xff\xff\xff\xff"
    return bytes(data)


PICTURES = st.one_of(spoiled(), st.binary(max_size=200), st.just(b"\xff" * 70_000))
WORDS = st.one_of(st.sampled_from(TRICKS), st.text(max_size=20))
JSON_VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.sampled_from([10**400, -1, 0, "\ud800", *KNOWN, *TRICKS]),
        st.text(max_size=10),
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=8,
)
FIELDS = {
    "id": st.one_of(st.sampled_from(KNOWN), WORDS),
    "label": st.one_of(st.sampled_from(["ok", "ng", "unsure", "none"]), WORDS),
    "kind": st.one_of(st.just("scratch"), WORDS),
    "who": st.one_of(st.just("me"), st.just("you"), WORDS),
    "key": WORDS,
    "name": st.one_of(st.sampled_from(["original", "001", "002"]), WORDS),
    "token": WORDS,
    "value": st.one_of(st.floats(), st.floats(-2, 2), WORDS),
    "review": st.one_of(st.none(), st.none(), st.tuples(st.floats(), st.floats())),
}


WANTED = {
    "/review/labels": ("id", "label", "kind", "who"),
    "/review/undo": ("who",),
    "/review/threshold": ("value", "review", "who"),
    "/review/retrain": ("who",),
    "/review/retrain/cancel": (),
    "/review/switch": ("name", "who"),
    "/review/roll_back": ("who",),
    "/drift/accept": ("who",),
    "/drift/reset": (),
    "/drift/training": ("who",),
    "/login": ("token",),
    "/logout": (),
}


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


OBJECTS = st.fixed_dictionaries({}, optional=FIELDS | dict.fromkeys(("extra", ""), JSON_VALUES))
BODIES = st.one_of(
    OBJECTS.map(as_json),
    JSON_VALUES.map(as_json),
    st.sampled_from([b"[" * 100_000, b'{"a":' * 50_000, b'{"who":"\\ud800"}', b"\xff\xfe", b"NaN"]),
    st.binary(max_size=50),
)


@st.composite
def forms(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """(content type, body) of a form with some files, or nearly one."""
    boundary = draw(st.sampled_from([b"b", b"-", b"x" * 70, b"a b", b'"q"', b"\xff"]))
    body = b""
    for _ in range(draw(st.integers(0, 6))):
        field = draw(st.sampled_from(["file", "files", "files", "x", ""]))
        name = draw(WORDS).encode("utf-8", "replace").replace(b'"', b"%22")
        more = draw(st.sampled_from([b"", b"Content-Type: image/png\r\n", b"X: " + b"y" * 9000]))
        disposition = b'Content-Disposition: form-data; name="%s"; filename="%s"\r\n'
        body += b"--" + boundary + b"\r\n" + disposition % (field.encode(), name) + more
        body += b"\r\n" + draw(PICTURES) + b"\r\n"
    body += draw(
        st.sampled_from([b"--" + boundary + b"--\r\n", b"--" + boundary, b"", b"\r\n\r\n"])
    )
    kind = b"multipart/form-data; boundary=" + boundary
    return draw(
        st.sampled_from([kind, kind, kind + b"; charset=utf-7", b"multipart/form-data"])
    ), body


NAMES = ["map", "limit", "offset", "order", "verdict", "label", "kind", "old", "new", "version"]
VALUES = st.one_of(
    st.sampled_from(["none", "png", "raw", "ng", "ok", "score", "newest", "anomalous", "original"]),
    st.sampled_from(["0", "1", "1e999", "-1", "true", str(10**30)]),
    WORDS,
)
OF_AN_IMAGE = ["", "/thumb", "/picture", "/overlay", "/nearest", "/nearest/0", "/nearest/-1"]


def escaped(text: str) -> bytes:
    raw = text.encode("utf-8", "replace")
    return b"".join(bytes([c]) if 0x20 < c < 0x7F else b"%%%02X" % c for c in raw)


@st.composite
def targets(draw: st.DrawFn, path: str) -> bytes:
    pairs = draw(st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=3))
    query = "&".join(f"{name}={value}" for name, value in pairs)
    return escaped(path + ("?" + query if pairs else ""))


@st.composite
def aimed(draw: st.DrawFn) -> Asked:
    """A request of the right kind for a route, wrong in what it says."""
    route = draw(st.sampled_from(["picture", "picture", "batch", "json", "json", "image", "get"]))
    host = (b"Host", b"127.0.0.1:8000")
    if route in ("picture", "batch"):
        alone = st.tuples(st.sampled_from([b"image/png", b"application/octet-stream"]), PICTURES)
        path = draw(st.sampled_from(["/predict", "/predict", "/review/upload"]))
        path = "/predict/batch" if route == "batch" else path
        kind, body = draw(forms() if route == "batch" else st.one_of(alone, forms()))
        asked = "/predict/batch" if route == "batch" else path
        target = asked + draw(st.sampled_from(["", "?map=png", "?map=raw", "?map=x"]))
        return Asked("POST", escaped(target), (host, (b"Content-Type", kind)), body)
    if route == "json":
        path = draw(st.sampled_from(list(WANTED)))
        wanted = {name: FIELDS[name] for name in WANTED[path]}
        whole = st.fixed_dictionaries(wanted).map(as_json)
        body = draw(st.one_of(whole, whole, OBJECTS.map(as_json), BODIES))
        header = (b"Content-Type", b"application/json")
        return Asked("POST", draw(targets(path)), (host, header), body)
    path = draw(st.sampled_from(ROUTES))
    if route == "image":
        image = draw(st.one_of(st.sampled_from(KNOWN), WORDS))
        path = f"/review/images/{image}{draw(st.sampled_from(OF_AN_IMAGE))}"
    return Asked("GET", draw(targets(path)), (host,), b"")


@st.composite
def wild(draw: st.DrawFn) -> Asked:
    """A request of any kind to any place."""
    method = draw(st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "TRACE", "FOO"]))
    path = draw(st.sampled_from(ROUTES)) + draw(st.one_of(st.just(""), WORDS.map("/{}".format)))
    kind = draw(st.sampled_from([b"", b"text/plain", b"a/b;;;=", b"\xff", b"application/json"]))
    odd = [b"Origin", b"Cookie", b"Authorization", b"Range", b"Accept", b"X-A", b"If-None-Match"]
    line = st.binary(max_size=30).map(printable)
    headers = draw(st.lists(st.tuples(st.sampled_from(odd), line), max_size=3))
    hosts = [b"127.0.0.1:8000", b"localhost", b"evil.example", b"", b"[", b"a:b:c"]
    host = (b"Host", draw(st.sampled_from(hosts)))
    body = b"" if method in ("GET", "HEAD") else draw(st.one_of(BODIES, PICTURES))
    return Asked(method, draw(targets(path)), (host, (b"Content-Type", kind), *headers), body)


def printable(text: bytes) -> bytes:
    return bytes(c for c in text if c >= 0x20 and c != 0x7F).strip()


REQUESTS = st.one_of(aimed(), aimed(), aimed(), wild())


def check(asked: Asked, status: int, body: bytes) -> None:
    assert 200 <= status < 500, (asked, status, body)
    if status >= 400:
        assert not any(word in body for word in PRIVATE), (asked, body)
    if status >= 400 and asked.method != "HEAD":
        assert set(json.loads(body)) == {"error", "detail"}, (asked, body)


def busy(self: Any, who: str) -> None:
    """In place of a training, which would take the machine."""
    raise ValueError("a training is going on; wait for its end, or cancel it")


@pytest.fixture(scope="module")
def fuzzed(
    lea_run: Path, toy: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TestClient]:
    """A whole server over a run of its own, with some pictures to review."""
    folder = tmp_path_factory.mktemp("fuzz")
    shutil.copytree(lea_run, folder / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Retraining, "start", busy)
        app = create_app(make_settings(folder / "run", {"device": "cpu", "keep": True, **LIMITS}))
        for data in GOOD[:3]:
            app.state.services.store.add_bytes(data, ".png", "request")
        with TestClient(app, base_url="http://127.0.0.1:8000") as client:
            yield client


async def drive(app: FastAPI, asked: Asked) -> tuple[int, bytes]:
    """What the app answers to a request, without a client that would mend it."""
    path, _, query = asked.target.partition(b"?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": asked.method,
        "scheme": "http",
        "path": unquote(path.decode("ascii")),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": [(name.lower(), value) for name, value in asked.headers],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
        "state": {},
    }
    half = len(asked.body) // 2
    coming = [
        {"type": "http.request", "body": asked.body[:half], "more_body": True},
        {"type": "http.request", "body": asked.body[half:], "more_body": False},
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        if coming:
            return coming.pop(0)
        await asyncio.Event().wait()  # the client stays
        return None

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], b"".join(one.get("body", b"") for one in sent[1:])


@settings(
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(asked=REQUESTS)
def test_no_request_is_answered_with_a_5xx(fuzzed: TestClient, asked: Asked) -> None:
    portal: Any = fuzzed.portal
    check(asked, *portal.call(drive, fuzzed.app, asked))


@pytest.mark.parametrize("data", BOMBS)
def test_bombs_are_refused(fuzzed: TestClient, data: bytes) -> None:
    answer = fuzzed.post("/predict", content=data, headers={"Content-Type": "image/png"})
    assert (answer.status_code, answer.json()["error"]) == (400, "unreadable")


SERVER = """
import sys
from leanet.cli import main
from leanet.serve.retrain import Retraining

def busy(self, who):
    raise ValueError("a training is going on")

Retraining.start = busy
sys.exit(main(sys.argv[1:]))
"""


def over_the_wire(port: int, asked: Asked) -> tuple[int, bytes]:
    lines = [asked.method.encode() + b" " + asked.target + b" HTTP/1.1"]
    lines += [name + b": " + value for name, value in asked.headers]
    lines += [b"Content-Length: %d" % len(asked.body), b"Connection: close", b"", asked.body]
    answer = bytearray()
    with socket.create_connection(("127.0.0.1", port), timeout=60) as plain:
        try:
            plain.sendall(b"\r\n".join(lines))
            while some := plain.recv(65536):
                answer += some
        except ConnectionError:  # refused before the body was sent
            assert answer.startswith(b"HTTP/1.1 4") or len(asked.body) > 50_000, asked
            return 413, b'{"error": "", "detail": ""}'
    head, _, body = bytes(answer).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 "), (asked, answer)
    return int(head.split()[1]), body


def resident(pid: int) -> float:
    """Bytes of memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024.0 * int(status.partition("VmRSS:")[2].split()[0])


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_many_bad_requests_leave_a_real_server_as_it_was(lea_run: Path, tmp_path: Path) -> None:
    shutil.copytree(lea_run, tmp_path / "run")
    flags = [f"--{name}={value}" for name, value in LIMITS.items()]
    words = ["serve", str(tmp_path / "run"), "--port", "0", "--keep", "--device", "cpu", *flags]
    with subprocess.Popen(
        [sys.executable, "-u", "-c", SERVER, *words], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline().partition("127.0.0.1:")[2].partition("/")[0])
        memory: list[float] = []

        @settings(max_examples=MANY, suppress_health_check=list(HealthCheck), database=None)
        @given(asked=REQUESTS)
        def send(asked: Asked) -> None:
            status, body = over_the_wire(port, asked)
            memory.append(resident(server.pid))
            if status != 400 or body.startswith(b"{"):  # else the parser of HTTP has refused it
                check(asked, status, body)

        try:
            for data in GOOD[:3]:
                over_the_wire(
                    port, Asked("POST", b"/review/upload", ((b"Host", b"localhost"), IMAGE), data)
                )
            send()
            assert server.poll() is None
        finally:
            server.terminate()
        assert server.wait(30) == 0
    series = np.array(memory[len(memory) // 5 :])  # after what is made once
    told = [round(one / 1e6) for one in series[:: len(series) // 30]]
    print(f"{len(memory)} requests; MB of memory: {told}")  # noqa: T201 - shown by -s
    growth = [part[-1] - part[0] for part in np.array_split(series, 4)]
    assert min(growth) < STILL, "it grows all the time"
    assert sum(growth) < MOST_GROWTH, told
