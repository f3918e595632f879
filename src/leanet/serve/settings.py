"""What a server is told when it starts."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from leanet.config import from_dict, option

MIN_TOKEN = 16  # characters; a shorter one can be guessed over the network


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """The options of `leanet serve`, as the command line and a YAML file spell them."""

    host: str = option("127.0.0.1", "address to listen on; another than loopback needs a token")
    port: int = option(8000, "port to listen on; 0 takes a free one")
    hosts: tuple[str, ...] = option((), "further host names by which browsers reach the server")
    engine: Literal["torch", "onnx", "openvino"] = option("torch", "what computes the scores")
    device: str = option("auto", "auto, cpu or cuda")
    token: str | None = option(
        None, f"secret of at least {MIN_TOKEN} characters (default: environment LEANET_TOKEN)"
    )
    max_batch: int = option(16, "images that the model sees at a time, at most")
    max_wait_ms: float = option(5.0, "milliseconds that an image waits for others being decoded")
    queue: int = option(64, "images in the house at a time; more are refused with 429")
    max_bytes: int = option(20_000_000, "bytes of one image file, at most")
    max_batch_bytes: int = option(200_000_000, "bytes of one /predict/batch request, at most")
    max_pixels: int = option(25_000_000, "width x height of one image, at most")
    max_files: int = option(64, "files of one /predict/batch request, at most")
    keep: bool = option(False, "keep the pictures of requests, to review and to learn from")
    images: tuple[str, ...] = option((), "images, folders or globs to review")
    database: str | None = option(None, "SQLAlchemy URL for labels (default: STATE/labels.db)")
    who: str = option("operator", "who labels, where the page does not say")

    def __post_init__(self) -> None:
        least = {"max_batch": 1, "queue": 1, "max_bytes": 1, "max_batch_bytes": 1, "max_pixels": 1}
        least |= {"max_files": 1, "max_wait_ms": 0, "port": 0}
        for name, low in least.items():
            if not getattr(self, name) >= low:
                raise ValueError(f"{name} must be at least {low}, not {getattr(self, name)}")
        if self.port > 65535:
            raise ValueError(f"port must be at most 65535, not {self.port}")
        if self.token is not None and len(self.token) < MIN_TOKEN:
            raise ValueError(
                f"a token needs at least {MIN_TOKEN} characters, this one has {len(self.token)}; "
                "`openssl rand -hex 32` makes a good one"
            )
        if self.token is None and not is_loopback(self.host):
            raise ValueError(
                f"listening on {self.host} lets others in: give --token (or LEANET_TOKEN), or "
                "listen on 127.0.0.1"
            )


@dataclass(frozen=True, kw_only=True)
class Settings(ServeOptions):
    """A finished run, where the server keeps what it learns, and the options.

    Raises ValueError for an option out of range, a short token, and for another address than
    loopback without a token.
    """

    run: Path
    state: Path


def make_settings(run: Path, options: Mapping[str, Any], *, state: Path | None = None) -> Settings:
    """Settings from options by name; `state` is RUN-serve beside the run if none is given.

    Raises ValueError for an unknown option, and as `Settings`.
    """
    checked = from_dict(ServeOptions, options)
    return Settings(run=run, state=state or default_state(run), **vars(checked))


def default_state(run: Path) -> Path:
    """RUN-serve: beside the run, whose folder may be replaced while labels must stay.

    >>> default_state(Path("/runs/parts")).as_posix()
    '/runs/parts-serve'
    """
    resolved = run.resolve()
    return resolved.with_name(f"{resolved.name}-serve")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address.

    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "")]
    [True, True, True, False, False]
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
