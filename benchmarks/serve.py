"""What `leanet serve` answers, how fast, and in how much memory.

Starts the server as a process of its own on a free port and drives it over HTTP: answers beside
those of `leanet predict` on the same files; requests per second and their times with 1, 8 and 32
clients, beside a server that judges one picture at a time; memory over many requests, with the
slope of a line through it. Clients and server share the machine.

Run: python benchmarks/serve.py [RUN FOLDER-OF-IMAGES] [--requests 10000] [--seconds 10]
Without a run, a small colorizer is trained on generated pictures first (about a minute).
"""

from __future__ import annotations

import argparse
import csv
import http.client
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from leanet.data.toy import make_toy
from leanet.inference.predict import find_images

CLIENTS = (1, 8, 32)
MOST_FILES = 200
WARM_UP = 0.2  # share of the requests that the memory is given to settle


class Server(NamedTuple):
    port: int
    pid: int


class Load(NamedTuple):
    """Times in seconds of all requests that were answered with 200, how long it took, and the
    seconds that the server computed: what other work on the machine does not change much."""

    times: list[float]
    seconds: float
    refused: int
    computed: float

    def row(self) -> str:
        low, high = np.percentile(self.times, [50, 99]) * 1000
        rate = len(self.times) / self.seconds
        each = 1000 * self.computed / len(self.times)
        text = f"{rate:7.1f} /s  p50 {low:7.1f} ms  p99 {high:7.1f} ms  CPU {each:5.1f} ms each"
        return f"{text}  {self.refused} refused"


@contextmanager
def serving(run: Path, state: Path, *flags: str) -> Iterator[Server]:
    words = ["serve", str(run), "--port", "0", "--state", str(state), "--device", "cpu", *flags]
    command = [sys.executable, "-u", "-m", "leanet", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if "answers at" not in line:
            raise SystemExit(f"the server did not start: {line}")
        port = int(line.partition("127.0.0.1:")[2].partition("/")[0])
        try:
            yield Server(port, process.pid)
        finally:
            process.terminate()
            status = process.wait(60)
    print(f"the server ended with status {status}")


def ask(connection: http.client.HTTPConnection, data: bytes) -> tuple[int, dict[str, Any]]:
    connection.request("POST", "/predict", data, {"Content-Type": "application/octet-stream"})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def drive(server: Server, bodies: Sequence[bytes], clients: int, end: int | float) -> Load:
    """So many clients at a time, each with one open connection, for `end` requests in all (int) or
    seconds (float)."""
    times: list[float] = []
    refused = itertools.count()
    turns = itertools.count()
    start, before = time.perf_counter(), computed(server.pid)

    def over(turn: int) -> bool:
        return turn >= end if isinstance(end, int) else time.perf_counter() - start > end

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
        while not over(turn := next(turns)):
            begun = time.perf_counter()
            status, _ = ask(connection, bodies[turn % len(bodies)])
            if status == 200:
                times.append(time.perf_counter() - begun)
            else:
                next(refused)
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    return Load(times, seconds, next(refused), computed(server.pid) - before)


def same_as_predict(run: Path, files: Sequence[Path], out: Path, port: int) -> None:
    words = ["predict", str(run), *map(str, files), "--out", str(out), "--no_heatmaps"]
    subprocess.run(
        [sys.executable, "-m", "leanet", *words, "--device", "cpu"], check=True, capture_output=True
    )
    with (out / "predictions.csv").open(encoding="utf-8") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    differences, equal = [], 0
    for path in files:
        _, answer = ask(connection, path.read_bytes())
        row = rows[path.as_posix()]
        differences.append(abs(answer["score"] - float(row["score"])))
        equal += answer["verdict"] == row["verdict"]
    print(
        f"{len(files)} files: {equal} verdicts as `leanet predict`, scores differ by at most "
        f"{max(differences):.1e} (median {statistics.median(differences):.1e})"
    )


def resident(pid: int) -> float:
    """Megabytes."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(status.partition("VmRSS:")[2].split()[0]) / 1000


def computed(pid: int) -> float:
    """Seconds of all processors that a process has used."""
    values = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK")


def memory(server: Server, bodies: Sequence[bytes], requests: int, clients: int = 8) -> None:
    step = max(requests // 40, 1)
    samples = []
    for done in range(step, requests + 1, step):
        drive(server, bodies, clients, step)
        samples.append((done, resident(server.pid)))
    settled = np.array([one for one in samples if one[0] >= WARM_UP * requests])
    slope = np.polyfit(settled[:, 0], settled[:, 1], 1)[0]
    print(
        f"memory over {requests} requests: {samples[0][1]:.0f} MB after {step}, "
        f"{settled[0][1]:.0f} MB after {settled[0][0]:.0f}, {samples[-1][1]:.0f} MB at the end; "
        f"slope {1000 * slope:+.2f} MB per 1,000 requests"
    )


def small_run(folder: Path) -> tuple[Path, Path]:
    data = make_toy(folder / "toy", num_normal=40, num_anomalous=16, size=96)
    words = ["fit", "colorizer", str(data), "--out", str(folder / "run"), "--img_size", "64"]
    words += ["--epochs", "5", "--base", "16", "--device", "cpu"]
    subprocess.run([sys.executable, "-m", "leanet", *words], check=True)
    return folder / "run", data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", nargs="?", type=Path)
    parser.add_argument("images", nargs="?", type=Path)
    parser.add_argument("--requests", type=int, default=10_000, help="of the memory measurement")
    parser.add_argument("--seconds", type=float, default=10.0, help="per number of clients")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        run, images = (given.run, given.images) if given.run else small_run(out)
        found = [path for path in find_images([images]) if "mask" not in str(path).lower()]
        files = found[:MOST_FILES]
        bodies = [path.read_bytes() for path in files]
        print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; {len(files)} pictures")
        rates: dict[tuple[str, int], float] = {}
        costs: dict[tuple[str, int], float] = {}
        for name, flags in (("batches", []), ("one at a time", ["--max_batch", "1"])):
            with serving(run, out / "state", *flags) as server:
                drive(server, bodies, 8, 50)  # warm
                if name == "batches":
                    same_as_predict(run, files, out / "predictions", server.port)
                for clients in CLIENTS:
                    load = drive(server, bodies, clients, given.seconds)
                    rates[name, clients] = len(load.times) / load.seconds
                    costs[name, clients] = load.computed / len(load.times)
                    print(f"{name:<14} {clients:3d} clients {load.row()}")
                if name == "batches":
                    memory(server, bodies, given.requests)
        for clients in CLIENTS:
            ratio = rates["batches", clients] / rates["one at a time", clients]
            saved = costs["one at a time", clients] / costs["batches", clients]
            print(
                f"{clients:3d} clients: batches answer {ratio:.2f}x as many per second, "
                f"{saved:.2f}x as many per second of computing"
            )


if __name__ == "__main__":
    main()
