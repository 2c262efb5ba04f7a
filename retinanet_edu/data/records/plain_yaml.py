"""As much of YAML as the settings of a YOLO dataset use: names, lists and numbered lists."""

from __future__ import annotations

import re
from typing import Any


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
    key = ""
    lines = iter(enumerate(text.splitlines(), start=1))
    for number, line in lines:
        line = _without_comment(line).rstrip()
        if not line.strip() or line in ("---", "..."):
            continue
        while _opened(line):  # a list over several lines
            number, more = next(lines, (number, None))
            if more is None:
                raise ValueError(f"line {number}: a bracket is not closed")
            line += " " + _without_comment(more).strip()
        item = re.fullmatch(r"\s*-\s+(.+)", line)
        entry = re.fullmatch(r"""(\s*)("[^"]*"|'[^']*'|[^\s:'"\[{][^:]*?)\s*:(?:\s+(.*))?""", line)
        if item and key and isinstance(found[key] or [], list):
            found[key] = [*(found[key] or []), _text(item[1])]
        elif entry and not entry[1]:
            key = _text(entry[2])
            found[key] = _value(entry[3] or "", number)
        elif entry and key and (found[key] == "" or isinstance(found[key], dict)):
            found[key] = (found[key] or {}) | {_text(entry[2]): _text(entry[3] or "")}
        else:
            raise ValueError(
                f"line {number} is none of `key: value`, `- item` and `0: name`; write it so"
            )
    return found


def _without_comment(line: str) -> str:
    quote = ""
    for i, letter in enumerate(line):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'" and (i == 0 or line[i - 1] in " [{,:"):
            quote = letter
        elif letter == "#" and (i == 0 or line[i - 1].isspace()):
            return line[:i]
    return line


def _opened(line: str) -> bool:
    value = re.sub(r"""^[^:]*:\s*""", "", line)
    return value[:1] in ("[", "{") and value[-1:] != {"[": "]", "{": "}"}[value[0]]


def _value(text: str, number: int) -> Any:
    text = text.strip()
    if text.startswith("["):
        return [_text(part) for part in _parts(text[1:-1])]
    if text.startswith("{"):
        pairs = [
            re.fullmatch(r"""\s*("[^"]*"|'[^']*'|[^:]+):\s*(.*)""", p) for p in _parts(text[1:-1])
        ]
        if not all(pairs):
            raise ValueError(f"line {number} is no list of `0: name`; write it so")
        return {_text(pair[1]): _text(pair[2]) for pair in pairs if pair}
    return _text(text)


def _parts(text: str) -> list[str]:
    """What commas part, outside of quotes."""
    parts = re.findall(r"""\s*((?:"[^"]*"|'[^']*'|[^,"'])+|["'][^,]*)\s*(?:,|$)""", text)
    return [part for part in parts if part.strip()]


def _text(text: str) -> str:
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1].replace(text[0] * 2, text[0])
    return text
