"""The review page itself: files of `static/`, none of which comes from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fastapi import APIRouter
from fastapi.responses import FileResponse

from leanet.serve.errors import RefusedError

STATIC: Final = Path(__file__).with_name("static")
PAGE: Final = STATIC / "review.html"
TYPES: Final = {".css": "text/css", ".js": "text/javascript"}
FILES: Final = {path.name: path for path in STATIC.iterdir() if path.suffix in TYPES}
FRESH: Final = {"Cache-Control": "no-cache"}  # asked again, and answered by 304 if it is the same

router = APIRouter(include_in_schema=False)


@router.get("/")
def page() -> FileResponse:
    """The page; it asks for the token where there is one."""
    return FileResponse(PAGE, media_type="text/html", headers=FRESH)


@router.get("/static/{name}")
def static_file(name: str) -> FileResponse:
    """A style sheet or a script."""
    if name not in FILES:
        raise RefusedError(404, "no such file of the page")
    path = FILES[name]
    return FileResponse(path, media_type=TYPES[path.suffix], headers=FRESH)
