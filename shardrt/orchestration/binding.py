"""How a user's function takes its context and its input, and what it returns.

One parameter may be the context: the one annotated with the context's class, or a first one
called `ctx`. One other parameter may be left, the input. Annotations that refer to names not
defined yet are looked up again at the first call.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from inspect import Parameter
from typing import TYPE_CHECKING, Any

from shardrt.core.history import NULL
from shardrt.errors import ConfigInvalid
from shardrt.orchestration.payload import ANY, Codec, codec_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType

    from msgspec import Raw

_VARIADIC = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


class Binding:
    """The signature of one activity or orchestrator."""

    __slots__ = (
        "_context",
        "_fn",
        "_input",
        "_input_codec",
        "_input_first",
        "_input_title",
        "_is_plain",
        "_names",
        "_result_codec",
        "_what",
        "takes_context",
        "takes_input",
    )

    def __init__(
        self, fn: Callable[..., Any], context_class: type, what: str, names: Mapping[str, Any]
    ) -> None:
        self._fn = fn
        self._what = what
        self._input_title = f"input of {what}"
        self._names = names
        self._context: Parameter | None = None
        self._input: Parameter | None = None
        self._input_first = False
        self._input_codec: Codec[Any] | None = None
        self._result_codec: Codec[Any] | None = None
        self._take_parameters(context_class)
        self.takes_input = self._input is not None
        self.takes_context = self._context is not None
        self._is_plain = self._takes_plainly()
        # What is not defined yet may come further down in the module.
        with contextlib.suppress(NameError):
            self._resolve()

    @property
    def input_codec(self) -> Codec[Any]:
        """Of the input; plain JSON if the function takes none or does not say."""
        if self._input_codec is None:
            self._resolve_or_refuse()
        assert self._input_codec is not None
        return self._input_codec

    def result_codec(self) -> Codec[Any]:
        """Of what it returns; plain JSON if it does not say."""
        if self._result_codec is None:
            self._resolve_or_refuse()
        assert self._result_codec is not None
        return self._result_codec

    def arguments(self, context: object, payload: Raw) -> tuple[list[Any], dict[str, Any]]:
        """Return what to call the function with.

        Raises:
            InputInvalid: the payload does not fit the annotation.
        """
        positional: list[Any] = []
        named: dict[str, Any] = {}
        for parameter in (self._context, self._input):
            if parameter is None:
                continue
            if parameter is self._context:
                value = context
            elif payload == NULL and parameter.default is not Parameter.empty:
                value = parameter.default
            else:
                value = self.input_codec.decode(payload, self._input_title)
            if parameter.kind is Parameter.KEYWORD_ONLY:
                named[parameter.name] = value
            else:
                positional.append(value)
        if self._input_first and len(positional) == 2:
            positional.reverse()
        return positional, named

    def call(self, context: object, payload: Raw) -> Any:
        """Call the function; for a coroutine function this only makes the coroutine."""
        if self._is_plain:
            if self._input is None:
                return self._fn() if self._context is None else self._fn(context)
            codec = self._input_codec or self.input_codec
            try:
                value = codec.decode_json(payload)
            except Exception as error:
                raise codec.invalid(self._input_title, error) from error
            return self._fn(value) if self._context is None else self._fn(context, value)
        positional, named = self.arguments(context, payload)
        return self._fn(*positional, **named)

    def _take_parameters(self, context_class: type) -> None:
        for index, parameter in enumerate(inspect.signature(self._fn).parameters.values()):
            if self._context is None and self._is_context(index, parameter, context_class):
                self._context = parameter
            elif parameter.kind in _VARIADIC:
                raise ConfigInvalid(f"{self._what}: *{parameter.name} cannot be bound")
            elif self._input is None:
                self._input = parameter
                self._input_first = self._context is None
            else:
                extra = f"{self._input.name!r} and {parameter.name!r}"
                raise ConfigInvalid(
                    f"{self._what}: has more than one parameter beside its context ({extra}); "
                    "an input is one value: use a dataclass, a dict or a tuple"
                )

    def _takes_plainly(self) -> bool:
        """Whether it is called as `fn(context, input)`, without what it does not take."""
        for parameter in (self._context, self._input):
            if parameter is not None and parameter.kind is Parameter.KEYWORD_ONLY:
                return False
        if self._input is not None and self._input.default is not Parameter.empty:
            return False
        return not (self._input_first and self._context is not None)

    def _is_context(self, index: int, parameter: Parameter, context_class: type) -> bool:
        annotation = parameter.annotation
        if annotation is Parameter.empty:
            return index == 0 and parameter.name == "ctx"
        if isinstance(annotation, str):
            if annotation.rpartition(".")[2].strip("'\"") == context_class.__name__:
                return True
            try:
                annotation = self._evaluate(annotation)
            except NameError:
                return False
        return isinstance(annotation, type) and issubclass(annotation, context_class)

    def _evaluate(self, annotation: Any) -> Any:
        if not isinstance(annotation, str):
            return annotation
        module = sys.modules.get(self._fn.__module__)
        scope = {**vars(module)} if module is not None else {}
        # Annotations are the code of whoever wrote the function.
        return eval(annotation, scope | dict(self._names))  # noqa: S307

    def _resolve(self) -> None:
        signature = inspect.signature(self._fn)
        self._input_codec = (
            ANY if self._input is None else self._codec(self._input.annotation, "input")
        )
        self._result_codec = self._codec(signature.return_annotation, "result")
        self._names = {}

    def _codec(self, annotation: Any, role: str) -> Codec[Any]:
        if annotation is Parameter.empty:
            return ANY
        try:
            return codec_for(self._evaluate(annotation))
        except ConfigInvalid as error:
            raise ConfigInvalid(f"{role} of {self._what}: {error}") from error

    def _resolve_or_refuse(self) -> None:
        try:
            self._resolve()
        except NameError as error:
            raise ConfigInvalid(
                f"{self._what}: an annotation cannot be resolved: {error}"
            ) from error


def names_of_caller(depth: int) -> Mapping[str, Any]:
    """Return the local names of a caller, in which annotations may be defined."""
    frame: FrameType = sys._getframe(depth + 1)  # noqa: SLF001
    if frame.f_locals is frame.f_globals:
        return {}
    return dict(frame.f_locals)
