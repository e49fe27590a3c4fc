"""The subcommands that talk to a service: what they need, and where they take it from."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from service.client import Event
from service.operate import client_commands
from service.operate.command_frame import harmless
from service.operate.commands import main

_NOWHERE = "http://127.0.0.1:1"


def _invoke(*words: str, **variables: str) -> Result:
    given = {"SEQSTREAM_URL": None, "SEQSTREAM_TOKEN": None, **variables}
    return CliRunner().invoke(main, words, env=given)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("send", "p", "x"), "--user is needed"),
        (("send", "p", "x", "--url", _NOWHERE), "no token"),
        (("send", "p", "x", "--url", _NOWHERE, "--token", "t", "--user", "u"), "--user is the"),
        (("tail", "p", "--url", "ftp://x", "--token", "t"), "Invalid value for --url"),
        (("load", "p"), "no address"),
        (("load", "--url", _NOWHERE, "--token", "t"), "Missing argument"),
        (("load", "p", "--url", _NOWHERE, "--token", "t", "--rate", "0"), "--rate"),
        (("load", "p", "--url", _NOWHERE, "--token", "t", "--seconds", "nan"), "1 to 10000000"),
    ],
)
def test_a_command_without_what_it_needs_says_so(words: tuple[str, ...], said: str) -> None:
    """Exit 2, as any wrong use, and nothing is started."""
    done = _invoke(*words)
    assert (done.exit_code, said in done.stderr) == (2, True), done.stderr


def test_json_has_one_object_on_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """`tail --json`: the data as it came, not a text of it."""
    client_commands._show_json("2-0", "message.new", b'{"seq":2}')
    assert capsys.readouterr().out == '{"id":"2-0","event":"message.new","data":{"seq":2}}\n'


@pytest.mark.parametrize(
    ("event", "entry_id"),
    [
        (Event("message.edited", b"{}", 3), "3-0"),
        (Event("build.status", b'{"entryId":"3-1"}'), "3-1"),
        (Event("build.status", b'{"status":"queued"}'), "-"),
    ],
)
def test_an_event_has_the_id_of_its_entry(event: Event, entry_id: str) -> None:
    """As from the database; what is no entry of the stream has none."""
    assert client_commands._id_of(event) == entry_id


def test_the_variable_of_an_address_chooses_http() -> None:
    """SEQSTREAM_URL alone, without the option: a token is then needed."""
    assert "no token" in _invoke("tail", "p", SEQSTREAM_URL=_NOWHERE).stderr


def test_a_file_without_a_token_is_no_token(tmp_path: Path) -> None:
    """Rather than a request without one."""
    (tmp_path / "empty").write_text(" \n")
    words = ("tail", "p", "--url", _NOWHERE, "--token-file", str(tmp_path / "empty"))
    assert "no token" in _invoke(*words).stderr


def test_a_token_that_no_header_can_carry_is_one_line(tmp_path: Path) -> None:
    """And the token is not printed."""
    done = _invoke("tail", "p", SEQSTREAM_URL=_NOWHERE, SEQSTREAM_TOKEN="se\u00e4cret")
    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)
    assert "cret" not in done.stderr


def test_a_peers_text_does_not_command_the_terminal() -> None:
    """Escape sequences, line breaks, and texts without end."""
    assert harmless("\x1b]0;x\x07 a\nb \u009b2J") == "\ufffd]0;x\ufffd a\ufffdb \ufffd2J"
    assert len(harmless("x" * 10_000)) == 501
