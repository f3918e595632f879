"""Picture files in the body of a request: read within a time, bounded in number and bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, Literal, NamedTuple

from fastapi import Request
from starlette.datastructures import FormData, UploadFile

from leanet.serve.errors import RefusedError
from leanet.serve.limits import too_large
from leanet.serve.settings import Settings

MapKind = Literal["none", "png", "raw"]
FORM: Final = "multipart/form-data"
BODY_SECONDS: Final = 30.0  # to receive a body
MAX_NAME: Final = 200  # characters of a file's name that are kept
_FIELDS: Final = 8  # of a form, beside its files

_BINARY: Final = {"type": "string", "format": "binary"}
ONE_BODY: Final[dict[str, Any]] = {
    "required": True,
    "content": {
        FORM: {"schema": {"type": "object", "properties": {"file": _BINARY}, "required": ["file"]}},
        "image/*": {"schema": _BINARY},
        "application/octet-stream": {"schema": _BINARY},
    },
}
SEVERAL_BODY: Final[dict[str, Any]] = {
    "required": True,
    "content": {
        FORM: {
            "schema": {
                "type": "object",
                "properties": {"files": {"type": "array", "items": _BINARY}},
                "required": ["files"],
            }
        }
    },
}


class Upload(NamedTuple):
    """A file's bytes and the name that the client gave it, for answers only."""

    name: str
    data: bytes


async def one_upload(request: Request, settings: Settings) -> Upload:
    """The one picture of a request: part `file` of a form, or the body itself.

    Raises:
        RefusedError: no file, several, too many bytes, another kind of body, or too slow.
    """
    kind = media_type(request)
    if kind == FORM:
        async with _form(request, 1) as form:
            parts = form.getlist("file")
            if len(parts) != 1 or not isinstance(parts[0], UploadFile):
                raise RefusedError(422, "give one picture as the part `file` of the form")
            return await read_upload(parts[0], settings)
    if kind.startswith("image/") or kind == "application/octet-stream":
        async with _in_time():
            data = await request.body()
        return _checked(Upload("", data), settings)
    raise RefusedError(
        415, f"send a picture as {FORM} (part `file`), image/* or application/octet-stream"
    )


@asynccontextmanager
async def several_uploads(request: Request, settings: Settings) -> AsyncIterator[list[UploadFile]]:
    """The files `files` of a form, received but not read yet.

    Raises:
        RefusedError: no form, no files, too many files or bytes, or too slow.
    """
    if media_type(request) != FORM:
        raise RefusedError(415, f"send pictures as {FORM}, parts `files`")
    async with _form(request, settings.max_files) as form:
        parts = [*form.getlist("files"), *form.getlist("file")]
        files = [part for part in parts if isinstance(part, UploadFile)]
        if not files or len(files) < len(parts):
            raise RefusedError(422, "give pictures as the parts `files` of the form")
        yield files


async def read_upload(file: UploadFile, settings: Settings) -> Upload:
    """A file of a form. Raises `RefusedError` for too many bytes."""
    if (file.size or 0) > settings.max_bytes:
        raise too_large(settings.max_bytes)
    return _checked(Upload(shown_name(file.filename), await file.read()), settings)


def shown_name(name: str | None) -> str:
    """The last part of a file's name, printable and short; it is never used as a path.

    >>> shown_name("../../etc/a\\x00b.png")
    'ab.png'
    """
    last = (name or "").replace("\\", "/").rpartition("/")[2]
    return "".join(letter for letter in last if letter.isprintable())[-MAX_NAME:]


def media_type(request: Request) -> str:
    """The kind of the body, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _checked(upload: Upload, settings: Settings) -> Upload:
    if len(upload.data) > settings.max_bytes:
        raise too_large(settings.max_bytes)
    return upload


@asynccontextmanager
async def _form(request: Request, max_files: int) -> AsyncIterator[FormData]:
    async with _in_time():
        form = await request.form(max_files=max_files, max_fields=_FIELDS)
    try:
        yield form
    finally:
        await form.close()


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(BODY_SECONDS):
            yield
    except TimeoutError:
        raise RefusedError(408, f"the body did not come within {BODY_SECONDS:g} s") from None
