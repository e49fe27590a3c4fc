"""Texts that break a careless framer, decoder or reader of lines. Pure; all differ."""

from __future__ import annotations

_SHORT = (
    "x",
    " ",
    "  leading and trailing  ",
    "\n",
    "\r",
    "\r\n\r\n",
    "two\nlines",
    "three\r\nkinds\rof\nends\n",
    "\n\ndata: injected\n\n",
    "data: x\n\nid: 999999\nevent: stream.closing\ndata: {}\n\n",
    "id: 0\nretry: 3600000\n\n: comment",
    "event: error\ndata: {}",
    "\ufeff",
    "\ufeffafter a byte order mark",
    "line\u2028separator",
    "paragraph\u2029separator",
    "next\x85line",
    "vertical\x0btab, form\x0cfeed, \x1c \x1d \x1e separators",
    "\x01\x02\x1b[2J\x7f",
    "null and undefined",
    "null",
    '"',
    "\\",
    '\\u2028 \\n \\"',
    '{"seq": 1, "content": {"text": "nested"}}',
    "</script><!--",
    "é 漢字 ⁂ \u200f\u202e",
    "🧵👩‍👩‍👧‍👦",
    "%s %n {0} ${HOME} `id`",
)
_NOT_BARE = {"\n", "\r"}
# A text of one of these, repeated: each escapes to another length.
_FILLERS = ("a", '"', "\\", "\n", "\x01", "\x85", "\u2028", "漢", "🧵")


def hostile_texts(longest_bytes: int, *, bare: bool = False) -> list[str]:
    """Return all of them, the longest with exactly `longest_bytes` bytes of UTF-8 or just below.

    `bare`: those that SSE can carry without an encoding such as JSON.
    """
    sizes = (1000, 4096, 8192, 65_536 - 1024, longest_bytes)
    texts = list(_SHORT)
    for size in sorted({min(size, longest_bytes) for size in sizes}):
        fillers = _FILLERS if size in (4096, longest_bytes) else _FILLERS[:1]
        texts += [filler * (size // len(filler.encode())) for filler in fillers]
    assert len(set(texts)) == len(texts)
    return [text for text in texts if not bare or not _NOT_BARE & set(text)]
