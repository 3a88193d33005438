"""Types that users teach the payloads."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from shardrt.errors import ConfigInvalid, InputInvalid
from shardrt.orchestration import custom
from shardrt.orchestration.app import App
from shardrt.orchestration.payload import codec_for, encode

if TYPE_CHECKING:
    from collections.abc import Iterator


class Point:
    def __init__(self, x: int, y: int) -> None:
        self.x, self.y = x, y

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and (self.x, self.y) == (other.x, other.y)

    def __hash__(self) -> int:
        return hash((self.x, self.y))


class Pixel(Point): ...


@dataclass
class Line:
    start: Point
    end: Point | None = None


def to_json(point: Point) -> list[int]:
    return [point.x, point.y]


def from_json(value: Any) -> Point:
    x, y = value
    if x < 0:
        raise ValueError("x is negative")
    return Point(x, y)


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    custom._codecs.clear()


def taught() -> App:
    app = App()
    app.codec(Point, encode=to_json, decode=from_json)
    return app


def test_values_go_there_and_back():
    taught()
    line = Line(Point(1, 2), Point(3, 4))
    assert bytes(encode(line)) == b'{"start":[1,2],"end":[3,4]}'
    assert codec_for(Line).decode(encode(line)) == line
    assert codec_for(list[Point | None]).decode(encode([Point(1, 2), None])) == [Point(1, 2), None]
    either: Any = Point | Line
    assert codec_for(either).decode(encode(Point(5, 6))) == Point(5, 6)


def test_a_subclass_is_another_type():
    taught()
    with pytest.raises(InputInvalid, match="objects of type Pixel have no JSON form"):
        encode(Pixel(1, 2))


def test_what_does_not_fit_is_told_with_its_place():
    taught()
    with pytest.raises(InputInvalid, match=r"x is negative - at `\$\.end`"):
        codec_for(Line).decode(encode({"start": [1, 2], "end": [-1, 2]}))


def test_what_nobody_has_taught_is_refused():
    with pytest.raises(
        InputInvalid, match=r"objects of type Point have no JSON form - at `\$\.start`"
    ):
        encode(Line(Point(1, 2)))


def test_teaching_the_same_again_changes_nothing_and_another_way_is_refused():
    taught()
    taught()
    with pytest.raises(ConfigInvalid, match="Point has another codec already"):
        App().codec(Point, encode=repr, decode=from_json)


def test_types_with_a_form_of_their_own_are_refused():
    with pytest.raises(ConfigInvalid, match="Decimal has a JSON form already"):
        App().codec(Decimal, encode=str, decode=Decimal)
    with pytest.raises(ConfigInvalid, match="Line has a JSON form already"):
        App().codec(Line, encode=repr, decode=repr)  # type: ignore[arg-type]
    with pytest.raises(ConfigInvalid, match="a codec is for a class"):
        App().codec(3, encode=repr, decode=repr)  # type: ignore[arg-type]
