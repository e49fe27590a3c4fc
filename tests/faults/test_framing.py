"""Any text passes the service unchanged, as read by two third-party SSE parsers.

docs/protocol.md §6: `data` is one line. A message's text is received as it was posted, with any
newlines and control characters, wherever the network splits the bytes.
"""

from __future__ import annotations

import asyncio
import itertools
import random

import httpx
import msgspec
from httpx_sse._decoders import SSEDecoder, SSELineDecoder
from hypothesis import given
from hypothesis import strategies as st
from sseclient import SSEClient

from streams.model import sse
from tests.conftest import StartService
from tests.support.api import Api
from tests.support.signing import token

_NEWLINES = ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]
_CONTROLS = [chr(code) for code in [*range(1, 32), 127, 0xFEFF, 0xFFFE, 0xFFFF, 0x202E]]
# No lone surrogates: JSON in UTF-8 cannot represent them.
_text = st.lists(
    st.one_of(
        st.characters(exclude_categories=["Cs"], exclude_characters="\x00"),
        st.sampled_from(_NEWLINES + _CONTROLS),
    ),
    min_size=1,
    max_size=200,
).map("".join)
_Parsed = list[tuple[str, str, str]]


def _with_httpx_sse(chunks: list[bytes]) -> _Parsed:
    decoder, lines = SSEDecoder(), SSELineDecoder()
    text = httpx.Response(200, content=iter(chunks)).iter_text()
    events: _Parsed = []
    for part in text:
        for line in lines.decode(part):
            event = decoder.decode(line)
            if event is not None and event.data:
                events.append((event.event, event.id, event.data))
    return events


def _with_sseclient(chunks: list[bytes]) -> _Parsed:
    return [(event.event, event.id or "", event.data) for event in SSEClient(iter(chunks)).events()]


def _escaped(data: bytes) -> str:
    """JSON as the stream has it: readers that split lines as Unicode does get one line."""
    text = data.decode()
    for separator in "\x85\u2028\u2029":
        text = text.replace(separator, f"\\u{ord(separator):04x}")
    return text


def _cut(data: bytes, rng: random.Random) -> list[bytes]:
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(20)))
    edges = [0, *cuts, len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges) if a < b]


@given(
    texts=st.lists(_text, min_size=1, max_size=5),
    first=st.integers(1, 2**53 - 10),
    seed=st.integers(0, 2**32),
)
def test_frames_are_read_back_however_they_are_cut(texts: list[str], first: int, seed: int) -> None:
    """§6: both parsers read the name, id and data of every event."""
    sent = [
        (seq, msgspec.json.encode({"seq": seq, "content": {"text": text}}))
        for seq, text in enumerate(texts, first)
    ]
    stream = sse.control_frame("stream.open", b"{}", cursor=0, retry_ms=1000)
    stream += b"".join(sse.message_frame(seq, data) for seq, data in sent)
    expected = [("stream.open", "0", "{}")]
    expected += [("message.new", str(seq), _escaped(data)) for seq, data in sent]
    chunks = _cut(stream, random.Random(seed))
    assert _with_httpx_sse(chunks) == expected
    assert _with_sseclient(chunks) == expected


def _nasty_texts() -> list[str]:
    rng = random.Random(5)
    texts = [f"a{sign}b" for sign in _NEWLINES + _CONTROLS]
    texts += ["\n", "data: x\n\nid: 9\n\n", ": comment", "\ufeff", "retry: 1\r\r", " lead", "end "]
    texts += ["x" * 65_536, "é" * 32_768, "🧵" * 16_384, "\n" * 65_536, '"\\' * 32_768]
    alphabet = [*_NEWLINES, *_CONTROLS, "a", "é", "漢", "🧵"]
    texts += ["".join(rng.choices(alphabet, k=500)) for _ in range(20)]
    return texts


async def test_any_text_comes_back_as_it_was_posted(start_service: StartService) -> None:
    """§6: replayed and live messages of up to 64 KiB, with both parsers."""
    service = await start_service()
    texts = _nasty_texts()
    half = len(texts) // 2
    async with Api(service.url, "u") as api:
        await api.create_project("p")
        for text in texts[:half]:
            await api.post("p", text)
        raw = asyncio.create_task(_raw_stream(service.url, len(texts)))
        for text in texts[half:]:
            await api.post("p", text)
        stream = await raw
        logged = [row.text for row in await api.log("p")]
    assert logged == texts
    chunks = _cut(stream, random.Random(1))
    for events in (_with_httpx_sse(chunks), _with_sseclient(chunks)):
        messages = [
            msgspec.json.decode(data)
            for name, _, data in events
            if name in ("message.new", "message.replay")
        ]
        assert [message["content"]["text"] for message in messages] == texts
        assert [message["seq"] for message in messages] == list(range(1, len(texts) + 1))


async def _raw_stream(url: str, last_seq: int) -> bytes:
    """Read a stream from the beginning until the event of `last_seq` is complete."""
    end = b"\nid: %d\n\n" % last_seq
    data = bytearray()
    async with asyncio.timeout(30), httpx.AsyncClient(verify=False, trust_env=False) as http:
        target = f"{url}/v1/projects/p/chat/stream?from_seq=0&token={token('u')}"
        async with http.stream("GET", target, timeout=20) as response:
            async for chunk in response.aiter_raw():
                data += chunk
                place = data.find(end)
                if place >= 0 and data.find(b"\n\n", place) >= 0:
                    return bytes(data)
    raise AssertionError("the stream ended too early")
