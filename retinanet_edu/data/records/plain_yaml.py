"""As much of YAML as the settings of a YOLO dataset use: names, lists and numbered lists."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

_CLOSING = {"[": "]", "{": "}"}


def read_plain_yaml(text: str) -> dict[str, Any]:
    """The values of `key: value`, `key: [a, b]`, `key: {0: a}`, and lists on lines of their own.

    Args:
        text: of the file.

    Returns:
        a text, a list of texts or a dict of texts for each key; all values stay texts.

    Raises:
        ValueError: a line is of another form.
    """
    found: dict[str, Any] = {}
    key, in_block = "", False
    lines = iter(enumerate(text.splitlines(), start=1))
    for number, line in lines:
        indented = line[:1].isspace()
        line = "".join(_pieces(line, "#", first=True)).strip()
        if not line or line in ("---", "...") or (in_block and indented):
            continue
        in_block = False
        try:
            if line.startswith("- ") and key and isinstance(found[key] or [], list):
                found[key] = found[key] or []
                found[key].append(_text(line[2:]))
                continue
            name, value = _pair(line)
            if not indented:
                key, in_block = name, value[:1] in ("|", ">")  # a text over several lines
                found[key] = _value(value, lines) if value and not in_block else ""
            elif key and isinstance(found[key] or {}, dict):
                found[key] = found[key] or {}
                found[key][name] = _text(value)
            else:
                raise ValueError("is in no list of its own")
        except ValueError as error:
            raise ValueError(
                f"line {number} {error}; only `key: value`, `- item` and `0: name` are read here"
            ) from None
    return found


def _value(text: str, lines: Iterator[tuple[int, str]]) -> Any:
    """A value; a list in brackets may go on over the next lines."""
    if text[0] not in _CLOSING:
        return _text(text)
    parts = [text]
    while not parts[-1].endswith(_CLOSING[text[0]]):
        more = next(lines, None)
        if more is None:
            raise ValueError("has a bracket that is not closed")
        parts.append("".join(_pieces(more[1], "#", first=True)).strip())
    items = [part for part in _pieces(" ".join(parts)[1:-1], ",") if part.strip()]
    if text[0] == "[":
        return [_text(part) for part in items]
    return {name: _text(value) for name, value in map(_pair, items)}


def _pair(text: str) -> tuple[str, str]:
    """Key and value around the first colon, the key perhaps in quotes."""
    text = text.strip()
    end = text.find(text[0], 1) + 1 if text[0] in "\"'" else 0
    key, colon, value = text[end:].partition(":")
    if not colon or (value and not value[0].isspace()) or (end and key.strip()):
        raise ValueError("has no key before a colon")
    return _text(text[:end] + key), value.strip()


def _pieces(text: str, mark: str, first: bool = False) -> Iterator[str]:
    """What a mark parts, outside of quotes; or only the first, where a comment is cut off."""
    start, quote = 0, ""
    for i, letter in enumerate(text):
        before = text[i - 1] if i else " "
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'" and before in " \t[{,:":
            quote = letter
        elif letter == mark and (mark == "," or before.isspace()):
            yield text[start:i]
            start = i + 1
            if first:
                return
    yield text[start:]


def _text(text: str) -> str:
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] == "'":
        return text[1:-1].replace("''", "'")
    if len(text) > 1 and text[0] == text[-1] == '"':
        with suppress(ValueError):
            return str(json.loads(text))  # most escapes are JSON's
        return text[1:-1]
    return text
