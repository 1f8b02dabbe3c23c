"""What is wrong with a setting, in the words of settings instead of the parser's.

Comes in    what jsonargparse says, and the function whose parameters are the settings
Goes out    one line; what is not known here, in the parser's own words
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

NO_RECORD = re.compile(r"Parser key \"(?P<key>[\w.]+)\": Unable to load config ['\"](?P<value>.*?)['\"] - ")
NO_TYPE = re.compile(r"Parser key \"(?P<key>[\w.]+)\": Expected an? <class '(?P<kind>\w+)'>\. Got value: (?P<value>.*)")
NO_NAME = re.compile(r"Parser key \"(?P<key>[\w.]+)\": .*Literal\[.*(?:Given|Got) value: (?P<value>.*)")
NAMES = re.compile(r"Expected an? typing\.Literal\[(.*?)\]")


NO_OPTION = re.compile(
    r"(?:Parser key \"(?P<key>[\w.]+)\": )?Does not validate against any of the Union subtypes Subtypes: .*? Errors: - "
    r"(?P<reason>.*?) - Expected a <class 'NoneType'> Given value"
)
"""What may be left out and was not: the parser tells the error of what it is, and that it is not nothing."""
NO_FIELD = re.compile(r"Problem with given class_path '[\w.]+': ")


def plainly(reason: str, function: Callable[..., object]) -> str:
    """The parser's reason, where it is one of the common ones, in plain words."""
    if found := NO_OPTION.search(reason):
        keys = re.findall(r"Parser key \"([\w.]+)\"", reason[: found.start("reason")])
        reason = f"{'.'.join(keys)}: {found['reason']}" if keys else found["reason"]
    reason = NO_FIELD.sub("", reason)
    if found := NO_RECORD.search(reason):
        return no_record(found["key"], found["value"], record_at(function, found["key"]))
    if found := NO_TYPE.search(reason):
        return f"{found['key']} is {found['value']}; expected {found['kind']}"
    if found := NO_NAME.search(reason):
        names = [name.strip(" '") for names in NAMES.findall(reason) for name in names.split(",")]
        return f"{found['key']} is {found['value']}; expected {', '.join(names)}"
    return reason


def no_record(key: str, value: object, kind: type | None) -> str:
    """What to say of a plain value where there should be a record."""
    if kind is None:
        return f"{key} is {value}; expected settings of its own"
    names = [field.name for field in fields(kind)]
    return f"{key} is {value}; expected some of {', '.join(names)}, such as {{{names[0]}: …}}"


def plain_values(
    hints: Mapping[str, Any], parsed: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, object, type]]:
    """Where a plain value stands instead of a record: its name, it, and the record."""
    for name, hint in hints.items():
        kind, value = record_of(hint), parsed.get(name)
        if kind is None or value is None or isinstance(value, kind):
            continue
        if not hasattr(value, "get"):
            yield f"{prefix}{name}", value, kind
        else:
            yield from plain_values(get_type_hints(kind), value, f"{prefix}{name}.")


def record_at(function: Callable[..., object], key: str) -> type | None:
    """The record that a setting is, by its name with points."""
    hints, kind = get_type_hints(function), None
    for name in key.split("."):
        kind = record_of(hints.get(name))
        hints = get_type_hints(kind) if kind else {}
    return kind


def record_of(hint: Any) -> type | None:
    """The frozen record in a type hint, which may be optional or of a generic kind."""
    for kind in (hint, get_origin(hint), *(part for option in get_args(hint) for part in (option, get_origin(option)))):
        if isinstance(kind, type) and is_dataclass(kind):
            return kind
    return None
