"""How long the command line takes to answer: medians of fresh interpreters, in seconds.

Run: python benchmarks/startup.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import leanet": ["-c", "import leanet"],
    "leanet --help": ["-m", "leanet", "--help"],
    "import torch": ["-c", "import torch"],
}


def seconds(arguments: list[str], repeats: int = 5) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


if __name__ == "__main__":
    for name, arguments in COMMANDS.items():
        print(f"{name:<16} {seconds(arguments):6.3f} s")
