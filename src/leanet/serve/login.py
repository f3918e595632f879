"""How a browser proves that its user knows the token."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from leanet.serve.errors import RefusedError, answers
from leanet.serve.limits import COOKIE, SESSION_SECONDS, Sessions
from leanet.serve.services import Services, services_of

router = APIRouter()


class Login(BaseModel):
    """What the login form of the page sends."""

    token: str = Field(max_length=1000)


@router.post("/login", status_code=204, responses=answers(401, 422))
async def login(
    given: Login, request: Request, services: Annotated[Services, Depends(services_of)]
) -> Response:
    """Give a browser a cookie that stands for the token; its scripts cannot read it."""
    answer, token = Response(status_code=204), services.settings.token
    if token is None:
        return answer
    sessions = Sessions(token)
    if not sessions.is_token(given.token):
        raise RefusedError(401, "that is not the token", headers={"WWW-Authenticate": "Bearer"})
    answer.set_cookie(
        COOKIE,
        sessions.new(),
        max_age=SESSION_SECONDS,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return answer


@router.post("/logout", status_code=204)
async def logout() -> Response:
    """Take the cookie back."""
    answer = Response(status_code=204)
    answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return answer
