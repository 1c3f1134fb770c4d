"""From loose data to a frozen request: every problem at once, each as a sentence with its field and the fix."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from studio.errors import RequestError, nearest, shortened

Request = TypeVar("Request", bound=BaseModel)
MOST_PROBLEMS = 8

# What pydantic calls a problem -> the words for it, made from the bounds of the field (``ctx``).
WORDS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "missing": lambda ctx: "is needed; give it a value",
    "greater_than_equal": lambda ctx: f"must be at least {ctx['ge']:g}",
    "greater_than": lambda ctx: f"must be more than {ctx['gt']:g}",
    "less_than_equal": lambda ctx: f"must be at most {_number(ctx['le'])}",
    "less_than": lambda ctx: f"must be less than {_number(ctx['lt'])}",
    "multiple_of": lambda ctx: f"must be a multiple of {ctx['multiple_of']:g}",
    "finite_number": lambda ctx: "must be a finite number",
    "string_too_long": lambda ctx: f"must have at most {ctx['max_length']:,} characters",
    "string_too_short": lambda ctx: _at_least(ctx, "characters", "must not be empty"),
    "too_long": lambda ctx: f"must have at most {ctx['max_length']} entries",
    "too_short": lambda ctx: _at_least(ctx, "entries", "must have at least one entry"),
    "literal_error": lambda ctx: f"must be one of {ctx['expected'].replace(' or ', ', ')}",
}
FIXES = {"string_too_long": "; shorten it", "too_long": "; leave the others out"}
KINDS = {"int": "a whole number", "float": "a number", "string": "text", "bool": "true or false"}
KINDS |= {"tuple": "a list", "list": "a list", "dict": "an object", "model": "an object"}


def parse(request_class: type[Request], data: object) -> Request:
    """``data`` as a request. Raises one RequestError that lists every problem; its ``field`` is the first one's."""
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise RequestError(f"A request must be an object of named settings, got {_shown(data)}.")
    try:
        return request_class.model_validate(data)
    except ValidationError as error:
        problems = _without_echoes(error.errors(include_url=False))
    sentences = [_sentence(problem, request_class) for problem in problems[:MOST_PROBLEMS]]
    if len(problems) > MOST_PROBLEMS:
        sentences.append(f"And {len(problems) - MOST_PROBLEMS} more problems like these.")
    raise RequestError(" ".join(sentences), field=_field(problems[0], request_class))


def own_options(record: type[Request], given: Mapping[str, Any], owner: str) -> Request:
    """A table entry's own settings, ``given`` as ``options``; RequestError that names the one at fault.

    ``owner`` is the entry's name, such as "ties" or "lokr".
    """
    try:
        return record.model_validate(given)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        name = str(problem["loc"][0])
        known = ", ".join(record.model_fields) or "none"
        words = f"there is no such option ({owner} has {known})"
        if problem["type"] != "extra_forbidden":
            words = problem["msg"].replace("Input should be", "must be")
        raise RequestError(f"options.{shortened(name)}: {words}.", field=f"options.{name}") from None


def defaults(request_class: type[BaseModel]) -> dict[str, Any]:
    """Every setting that may be left out, with the value it then has."""
    fields = request_class.model_fields.items()
    values = {name: field.get_default(call_default_factory=True) for name, field in fields if not field.is_required()}
    return request_class.model_construct(**values).model_dump(mode="json", include=set(values))


def with_settings(data: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """A copy of ``data`` with each ``name=value`` set, such as ``seed=7`` or ``views.1=rotate_180``.

    A value is read as JSON where it is JSON; what replaces a text stays the text it is. Lists grow by one at most.
    """
    try:
        changed = copy.deepcopy(dict(data))
    except RecursionError:
        raise RequestError("A request must not be nested so deeply; write its settings side by side.") from None
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name.strip():
            raise RequestError(f"--set needs name=value, such as seed=7; got {_shown(setting)}.")
        _set(changed, name.strip(), text)
    return changed


def _set(data: dict[str, Any], name: str, text: str) -> None:
    *outer, last = name.split(".")
    place: Any = data
    for key in outer:
        place = _child(place, key, name)
    if isinstance(place, dict):
        place[last] = _value(text, place.get(last))
    elif isinstance(place, list) and last.isdecimal() and int(last) < len(place):
        place[int(last)] = _value(text, place[int(last)])
    elif isinstance(place, list) and last.isdecimal() and int(last) == len(place):
        place.append(_value(text, place[0] if place else None))
    else:
        raise RequestError(f"{shortened(name)}: there is no such place; {_places(place)}.", field=outer[0])


def _child(place: Any, key: str, name: str) -> Any:
    if isinstance(place, dict) and key in place:
        return place[key]
    if isinstance(place, list) and key.isdecimal() and int(key) < len(place):
        return place[int(key)]
    raise RequestError(f"{shortened(name)}: there is no such place; {_places(place)}.", field=name.split(".")[0])


def _places(place: Any) -> str:
    if isinstance(place, dict):
        return f"choose one of {', '.join(map(str, place))}"
    if isinstance(place, list):
        return f"the list has the entries 0 to {len(place) - 1}" if place else "the list is empty"
    return "set the value itself, it has no parts"


def _value(text: str, before: Any) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return text if isinstance(before, str) and not isinstance(value, str) else value


def _without_echoes(problems: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Leaves out what only says that a container lacks the entries that are reported themselves."""
    listed = list(problems)
    inner = {problem["loc"][:1] for problem in listed if len(problem["loc"]) > 1}
    return [problem for problem in listed if not (problem["type"] == "too_short" and problem["loc"] in inner)]


def _field(problem: Mapping[str, Any], request_class: type[BaseModel]) -> str | None:
    if problem["loc"]:
        return ".".join(str(part) for part in problem["loc"])
    name = _own_words(problem).partition(":")[0]
    return name if name in request_class.model_fields else None


def _sentence(problem: Mapping[str, Any], request_class: type[BaseModel]) -> str:
    kind, field = problem["type"], _field(problem, request_class)
    if kind == "value_error":
        words = _own_words(problem)
        return _ended(words if not problem["loc"] else f"{field}: {words}")
    if kind == "extra_forbidden":
        return f"{shortened(str(field))}: there is no such setting{_suggestion(problem, request_class)}"
    return f"{field}: {_words(problem)}{_got(problem)}."


def _own_words(problem: Mapping[str, Any]) -> str:
    """The text of a ValueError that a request's own validator raised."""
    error = problem.get("ctx", {}).get("error")
    return str(error) if error is not None else ""


def _words(problem: Mapping[str, Any]) -> str:
    kind = problem["type"]
    if kind in WORDS:
        return WORDS[kind](problem.get("ctx", {}))
    name = KINDS.get(kind.partition("_")[0])
    return f"must be {name}" if name else "cannot be used as it is"


def _got(problem: Mapping[str, Any]) -> str:
    kind, value = problem["type"], problem["input"]
    if kind == "missing" or (kind.endswith("too_short") and not value):
        return ""
    if kind.startswith(("string_too", "too_")):
        return f", got {len(value):,}{FIXES.get(kind, '')}"
    return f", got {_shown(value)}"


def _suggestion(problem: Mapping[str, Any], request_class: type[BaseModel]) -> str:
    if len(problem["loc"]) > 1:
        return "; leave it out."
    near = nearest(str(problem["loc"][0]), request_class.model_fields)
    return f", did you mean {near!r}?" if near else f"; the settings are {', '.join(request_class.model_fields)}."


def _shown(value: object) -> str:
    if isinstance(value, dict | list | tuple):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    return "nothing" if value is None else shortened(repr(value))


def _at_least(ctx: Mapping[str, Any], what: str, one: str) -> str:
    return one if ctx["min_length"] == 1 else f"must have at least {ctx['min_length']} {what}"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _ended(words: str) -> str:
    return words if words.endswith((".", "?", "!")) else f"{words}."
