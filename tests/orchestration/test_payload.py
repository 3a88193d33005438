"""Values survive the way to JSON and back; what cannot is refused with where and why."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, TypedDict, TypeVar

import msgspec
import pytest
from hypothesis import given, strategies as st

from shardrt.core.history import NULL
from shardrt.errors import ConfigInvalid, InputInvalid
from shardrt.orchestration.payload import ANY, codec_for, encode

T = TypeVar("T")


class Color(enum.Enum):
    RED = "red"
    GREEN = "green"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclass
class Order:
    id: str
    amount: float
    tags: list[str] = field(default_factory=list)


@dataclass
class Refund:
    id: str
    reason: str


@dataclass
class Basket:
    first: Order | Refund
    others: dict[int, list[Order | Refund]]
    note: str | None = None


@dataclass
class Positive:
    n: int

    def __post_init__(self) -> None:
        if self.n <= 0:
            raise ValueError("n must be positive")


@dataclass
class Leaf:
    value: int


@dataclass
class Branch:
    left: Branch | Leaf
    right: Branch | Leaf | Literal["nothing"]
    names: dict[str, list[str]] = field(default_factory=dict)


class Point(NamedTuple):
    x: int
    y: int


class Movie(TypedDict):
    name: str
    year: int


class Parcel(TypedDict):
    content: Order | Refund
    weight: NotRequired[int]


class Message(msgspec.Struct):
    text: str
    at: datetime


class Cat(msgspec.Struct, tag=True):
    lives: int


class Dog(msgspec.Struct, tag=True):
    name: str


@dataclass
class Box(Generic[T]):
    content: T


class Model:
    """Quacks like a pydantic model."""

    model_fields = {"n": None}  # noqa: RUF012

    def __init__(self, n: int) -> None:
        self.n = n

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Model) and other.n == self.n

    __hash__ = None  # type: ignore[assignment]

    def model_dump(self, mode: str) -> dict[str, Any]:
        assert mode == "json"
        return {"n": self.n}

    @classmethod
    def model_validate(cls, value: Any) -> Model:
        if not isinstance(value, dict) or not isinstance(value.get("n"), int):
            raise ValueError("n is wanted")  # noqa: TRY004
        return cls(value["n"])


def text_of(payload: msgspec.Raw) -> str:
    return bytes(memoryview(payload)).decode()


def decode(text: str, annotation: Any) -> Any:
    return codec_for(annotation).decode(msgspec.Raw(text.encode()), "the input")


def refusal(text: str, annotation: Any) -> str:
    with pytest.raises(InputInvalid) as caught:
        decode(text, annotation)
    return str(caught.value)


NOW = datetime(2024, 2, 29, 12, 30, 1, 999_999, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (None, None),
        (True, bool),
        (2**200, int),
        (-(2**64), int | None),
        (2**64, Any),
        (0.1, float),
        ("ü\u0000🙂", str),
        (b"\x00\xff", bytes),
        (Decimal("1.10"), Decimal),
        (NOW, datetime),
        (datetime(2024, 1, 1), datetime),  # noqa: DTZ001
        (date(2024, 2, 29), date),
        (timedelta(days=30, microseconds=1), timedelta),
        (uuid.UUID(int=7), uuid.UUID),
        (Color.RED, Color),
        (Level.HIGH, Level),
        ([1, "a", None], list[int | str | None]),
        ((1, "a"), tuple[int, str]),
        ((1, 2, 3), tuple[int, ...]),
        ({1, 2}, set[int]),
        (frozenset({"a"}), frozenset[str]),
        ({"a": {1: [2.5]}}, dict[str, dict[int, list[float]]]),
        (Order("a", 1.5, ["x"]), Order),
        (Point(1, 2), Point),
        ({"name": "Brazil", "year": 1985}, Movie),
        (Message("hi", NOW), Message),
        ([Cat(9), Dog("Rex")], list[Cat | Dog]),
        (Box(3), Box[int]),
        (Box(Order("a", 1.0)), Box[Order]),
        (5, Annotated[int, msgspec.Meta(gt=3)]),
        ("b", Literal["a", "b"]),
        (Model(4), Model),
        ([Model(4)], list[Model]),
        # More than the decoder can tell apart by itself.
        (Order("a", 1.0), Order | Refund),
        (Refund("a", "b"), Order | Refund),
        (Refund("a", "b"), Annotated[Order | Refund, "either"]),
        ([Refund("a", "b"), None], list[Order | Refund | None]),
        ({"x": Order("a", 1.0)}, dict[str, Order | Refund]),
        ({"x": Order("a", 1.0)}, Mapping[str, Order | Refund]),
        ({"content": Order("a", 1.0)}, Parcel),
        ({3: Order("a", 1.0)}, dict[int, Order | Refund]),
        ((Order("a", 1.0), 2), tuple[Order | Refund, int]),
        ((Order("a", 1.0), Refund("b", "c")), tuple[Order | Refund, ...]),
        (Basket(Order("a", 1.0), {1: [Refund("b", "c")]}), Basket),
        (Box(Refund("a", "b")), Box[Order | Refund]),
        (Model(4), Model | Order),
        (Branch(Branch(Leaf(1), "nothing"), Leaf(2), {"a": ["b"]}), Branch),
        ([Order("a", 1.0)], list[Order | Refund] | Order),
    ],
)
def test_a_value_comes_back_as_it_was(value: Any, annotation: Any):
    payload = encode(value)
    again = codec_for(annotation).decode(payload)
    assert again == value
    assert type(again) is type(value)
    assert codec_for(annotation) is codec_for(annotation) or annotation is not Any


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])), inner
    ),
    max_leaves=20,
)  # fmt: skip


@given(json_values)
def test_plain_values_come_back_as_they_were(value: object):
    again = ANY.decode(encode(value))
    assert again == value
    assert repr(again) == repr(value)


@given(
    st.builds(
        Basket,
        st.builds(Refund, st.just("a"), st.just("b"))
        | st.builds(Order, st.just("a"), st.just(1.5)),
        st.dictionaries(
            st.integers(),
            st.lists(st.builds(Order, st.just("a"), st.integers().map(float))),
            max_size=3,
        ),
        st.none() | st.just("x"),
    )
)
def test_unions_come_back_as_they_were(value: Basket):
    assert codec_for(Basket).decode(encode(value)) == value


def test_none_and_ready_payloads_are_taken_as_they_are():
    payload = msgspec.Raw(b"[1]")
    assert encode(None) is NULL
    assert encode(payload) is payload


def test_the_word_null_in_a_text_is_no_problem():
    assert text_of(encode({"a": "null", "b": None, "c": 2**70})) == (
        '{"a":"null","b":null,"c":1180591620717411303424}'
    )


class Opaque:
    pass


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (float("nan"), "nan has no JSON form - at `$`"),
        ({"a": [1.0, float("inf")]}, "inf has no JSON form - at `$.a[1]`"),
        (Order("a", float("-inf")), "-inf has no JSON form - at `$.amount`"),
        ([2**70, float("nan")], "nan has no JSON form - at `$[1]`"),
        ({"b": Message("x", Opaque())}, "objects of type Opaque have no JSON form - at `$.b.at`"),  # type: ignore[arg-type]
        ({"k": "\ud800"}, "text with unpaired surrogates has no JSON form - at `$.k`"),
        ({Opaque}, "objects of type type have no JSON form - at `$[...]`"),
        ((1, Opaque()), "objects of type Opaque have no JSON form - at `$[1]`"),
    ],
)
def test_what_has_no_json_form_is_refused(value: object, reason: str):
    with pytest.raises(InputInvalid) as caught:
        encode(value, "event", "x")
    assert str(caught.value) == f"event 'x': {reason}"


def test_what_contains_itself_is_refused():
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(InputInvalid, match="value: nested too deeply, or contains itself"):
        encode(endless)


@pytest.mark.parametrize(
    ("text", "annotation", "reason"),
    [
        ('{"id":1,"amount":2}', Order, "Expected `str`, got `int` - at `$.id`"),
        ('{"id":"x"}', Order, "Object missing required field `amount`"),
        ("[1,", Any, "Input data was truncated"),
        ('{"n":0}', Positive, "n must be positive"),
        ('"x"', Order | Refund, "Expected `Order | Refund`: Expected `object`, got `str` - at `$`"),
        ("3", list[Order | Refund], "Expected `array`, got `int` - at `$`"),
        ("3", dict[str, Order | Refund], "Expected `object`, got `int` - at `$`"),
        ("{}", Parcel, "Object missing required field `content` - at `$`"),
        ("3", Basket, "Expected `object`, got `int` - at `$`"),
        ('{"others":{}}', Basket, "missing 1 required positional argument: 'first' - at `$`"),
        ("[1]", tuple[Order | Refund, int], "Expected `array` of length 2, got 1 - at `$`"),
        ('[{"id":"a","amount":"x"}]', list[Order | Refund], "at `$[0].amount`"),
        ('{"m":1}', Model, "n is wanted"),
    ],
)
def test_what_does_not_fit_is_refused_with_where_and_why(text: str, annotation: Any, reason: str):
    message = refusal(text, annotation)
    assert message.startswith("the input: ")
    assert reason in message


def test_a_member_that_knows_all_keys_is_preferred():
    assert decode('{"id":"a","amount":1,"reason":"b","tags":[]}', Order | Refund) == Order("a", 1)
    assert decode('{"id":"a","reason":"b"}', Order | Refund) == Refund("a", "b")


@pytest.mark.parametrize(("text", "annotation"), [("{}", Opaque), ("[{}]", list[Opaque])])
def test_a_type_without_a_json_form_is_refused(text: str, annotation: Any):
    assert "type Opaque has no JSON form" in refusal(text, annotation)


@pytest.mark.parametrize("annotation", [Opaque | Order, Color | Opaque])
def test_a_union_with_such_a_type_is_refused(annotation: Any):
    refusal("[]", annotation)


def test_an_annotation_that_cannot_be_is_refused():
    class Odd(enum.Enum):
        A = 1.5

    with pytest.raises(ConfigInvalid, match="Odd cannot be a payload"):
        codec_for(Odd)
    with pytest.raises(ConfigInvalid):
        codec_for(Odd | Order)


def test_an_annotation_that_does_not_hash_is_taken():
    assert codec_for(Annotated[int, {}]).decode(encode(3)) == 3


def test_attrs_classes_come_back_as_they_were():
    attrs = pytest.importorskip("attrs")
    made = attrs.make_class("Made", {"a": attrs.field(type=int)})
    assert codec_for(made).decode(encode(made(3))) == made(3)
    with pytest.raises(InputInvalid, match=r"at `\$\.a`"):
        encode(made(Opaque()))


def test_pydantic_models_come_back_as_they_were():
    pydantic = pytest.importorskip("pydantic")
    user = pydantic.create_model("User", name=(str, ...), born=(date, ...))
    value = user(name="Ada", born=date(1815, 12, 10))
    assert codec_for(user).decode(encode(value)) == value
    either: Any = list[user] | int  # type: ignore[valid-type]
    assert codec_for(either).decode(encode([value])) == [value]
    assert "born" in refusal('{"name":"Ada"}', user)
