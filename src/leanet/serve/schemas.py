"""The answers of the server, as its OpenAPI description shows them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class MapAnswer(BaseModel):
    """An anomaly map: a picture that shows it over the image, or its values."""

    kind: Literal["png", "raw"]
    width: int
    height: int
    data: str = Field(description="base64; raw: float32, little endian, row by row")
    low: float = Field(description="map value of the first color")
    top: float = Field(description="map value of the last color")
    unit: str | None = None


class JudgedAnswer(BaseModel):
    """What the model says of one image."""

    file: str = Field(description="the name that the client gave, or empty", examples=["part.png"])
    model: str = Field(description="the model that answered", examples=["original"])
    score: float | None = Field(
        description="higher is more anomalous; null where the model knows no normal class",
        examples=[0.93],
    )
    verdict: Literal["normal", "anomalous"] | None = Field(examples=["anomalous"])
    review: bool | None = Field(
        description="whether a person should look: the score is in the review zone",
        examples=[False],
    )
    probability: float | None = Field(
        description="of a defect; null where the scores are not calibrated", examples=[0.99]
    )
    threshold: float | None = Field(description="a score from here on is anomalous", examples=[0.5])
    parts: dict[str, float] = Field(
        description="the single scores that the score was made of", examples=[{"adn": 0.93}]
    )
    predicted: str | None = Field(description="the class, of several classes", examples=[None])
    probabilities: dict[str, float] = Field(description="per class", examples=[{}])
    unusual: list[str] = Field(
        description="in what the picture itself is unlike the training pictures, such as its "
        "brightness: an alarm that is not a defect",
        examples=[[]],
    )
    image: str | None = Field(description="its id for review, if it was kept", examples=[None])
    width: int = Field(examples=[640])
    height: int = Field(examples=[480])
    milliseconds: float = Field(description="in the server", examples=[12.5])
    map: MapAnswer | None = Field(default=None, description="if asked for and drawn")


class ErrorAnswer(BaseModel):
    """Why there is no answer."""

    error: str = Field(description="a word for programs", examples=["unreadable"])
    detail: str = Field(description="a sentence for people")


class FailedAnswer(ErrorAnswer):
    """A file of a batch that could not be judged."""

    file: str = Field(examples=["broken.png"])


class BatchAnswer(BaseModel):
    """What the model says of several images, in the order in which they came."""

    results: list[JudgedAnswer | FailedAnswer]
    failed: int = Field(description="how many of them could not be judged", examples=[0])
    milliseconds: float = Field(examples=[40.0])


class HealthAnswer(BaseModel):
    """Whether the server takes requests, and with what it answers."""

    ready: bool
    model: str = Field(examples=["original"])
    method: str = Field(examples=["leanet"])
    img_size: int = Field(examples=[256])
    engine: str = Field(examples=["torch"])
    threshold: float | None = Field(examples=[0.5])
    classes: list[str] = Field(examples=[[]])
    uptime_seconds: float = Field(examples=[3600.0])
    version: str = Field(examples=["0.1.0"])
    login: bool = Field(description="whether the other routes need the token", examples=[False])
