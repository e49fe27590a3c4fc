"""The chat page in a real browser: the service is killed, the network cut, the history long."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import count

import pytest
from playwright.async_api import Browser, BrowserContext, Route, ViewportSize, expect

from service.operate.embedded import PostgresServer, RedisServer
from tests.browser.chat_page import ChatPage, Room
from tests.support.api import Api
from tests.support.completions_server import (
    DONE,
    CompletionsServer,
    call_chunk,
    chunk,
    delta_chunk,
)
from tests.support.processes import ServiceProcess, service_environment
from tests.support.raw_stream import raw_request
from tests.support.signing import token
from tests.support.waiting import wait_until

_HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
# Return the first seq, and where the fifth message is afterwards.
_SCROLL_UP = """(scroller) => {
  scroller.scrollTop = 200;
  const rows = [...document.querySelectorAll("[data-seq]")];
  return [Number(rows[0].dataset.seq), rows[4].getBoundingClientRect().top];
}"""
_TOP = "each => each.getBoundingClientRect().top"
_PHONE: ViewportSize = {"width": 390, "height": 844}
_numbers = count(1)


@pytest.fixture(scope="module")
async def assistant() -> AsyncIterator[CompletionsServer]:
    """What the service's assistant answers with."""
    async with CompletionsServer([chunk("yes"), DONE]) as server:
        yield server


@pytest.fixture(scope="module")
async def service(
    postgres: PostgresServer,
    template_database: str,
    redis_server: RedisServer,
    assistant: CompletionsServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[ServiceProcess]:
    """One service for all tests; those that kill it start it again."""
    database_url = postgres.create_database("chat_page", template=template_database)
    environment = service_environment(
        database_url,
        redis_server.url,
        {"SEQSTREAM_ASSISTANT_URL": assistant.url, "SEQSTREAM_ASSISTANT_MODEL": "any"},
    )
    folder = tmp_path_factory.mktemp("chat-page")
    async with ServiceProcess("chat-page", folder, environment) as process:
        yield process


@pytest.fixture
async def room(service: ServiceProcess, assistant: CompletionsServer) -> AsyncIterator[Room]:
    """A project of alice, with bob as a member."""
    async with Api(service.url, "alice") as alice, Api(service.url, "bob") as bob:
        project = f"chat-{next(_numbers)}"
        await alice.create_project(project)
        await alice.add_member(project, "bob")
        yield Room(service, assistant, project, alice, bob)


@pytest.fixture
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    """A fresh profile."""
    async with await browser.new_context(viewport={"width": 1000, "height": 700}) as context:
        yield context


@pytest.fixture
async def chat(context: BrowserContext, room: Room) -> AsyncIterator[ChatPage]:
    """The live page of alice; at the end it must have logged no error."""
    chat = await ChatPage.open(context, room.service, room.id)
    yield chat
    assert chat.problems == []


async def test_a_message_is_shown_at_once_and_stored_once(chat: ChatPage, room: Room) -> None:
    """G4: shown while it is sent; the message from the stream takes its place, with its seq."""
    held: list[Route] = []
    await chat.page.route("**/chat/messages", lambda route: held.append(route))
    await chat.send("from the browser")
    await expect(chat.message("from the browser")).to_contain_text("sending")
    await wait_until(lambda: bool(held), what="the post")
    await held[0].continue_()
    shown = chat.message("from the browser")
    await expect(shown).to_have_attribute("data-seq", "1")
    await expect(shown).not_to_contain_text("sending")
    await expect(shown).to_have_count(1)
    assert await room.stored() == ["from the browser"]


async def test_others_are_seen_online_typing_and_writing(chat: ChatPage, room: Room) -> None:
    """§6: presence, typing and messages of others, by name."""
    stream = f"/v1/projects/{room.id}/chat/stream?token={token('bob')}"
    async with raw_request(room.service.port, stream):
        await expect(chat.page.get_by_text("Online: bob")).to_be_visible()
        path = f"/v1/projects/{room.id}/chat/typing"
        assert (await room.bob.request("POST", path, {"typing": True})).status_code == 202
        await expect(chat.page.get_by_text("bob is typing …")).to_be_visible()
        await room.bob.post(room.id, "by another way")
    shown = chat.messages.and_(chat.page.get_by_role("article", name="bob"))
    await expect(shown).to_contain_text("by another way")


async def test_a_hostile_text_is_shown_as_text(chat: ChatPage, room: Room) -> None:
    """Neither one's own nor another's message becomes markup, also in a name."""
    await room.bob.post(room.id, _HOSTILE)
    await chat.send(f"own {_HOSTILE}")
    await expect(chat.messages).to_have_count(2)
    assert await chat.texts() == [_HOSTILE, f"own {_HOSTILE}"]
    await expect(chat.log.locator("img, script")).to_have_count(0)
    assert await chat.page.evaluate("window.hacked") is None


async def test_an_answer_grows_and_ends_as_one_message(chat: ChatPage, room: Room) -> None:
    """§5: the pieces are shown as they come; the message replaces them."""
    room.assistant.answer_with([chunk("one "), chunk("two"), DONE], pause_before=1)
    await chat.send("what now?", mode="Plan")
    answer = chat.page.get_by_role("article", name="Assistant")
    await expect(answer.locator(".text")).to_have_text("one ")
    await expect(answer).to_contain_text("writing")
    room.assistant.go_on.set()
    await expect(answer.locator(".text")).to_have_text("one two")
    await expect(answer).not_to_contain_text("writing")
    await expect(answer.get_by_role("button", name="Stop")).to_have_count(0)
    await expect(answer).to_have_count(1)


async def test_an_answer_is_stopped(chat: ChatPage, room: Room) -> None:
    """§5: what was written so far stays, as a message that says that it was stopped."""
    room.assistant.answer_with([chunk("one "), chunk("two"), DONE], pause_before=1)
    await chat.send("what now?", mode="Plan")
    answer = chat.page.get_by_role("article", name="Assistant")
    await expect(answer.locator(".text")).to_have_text("one ")
    await answer.get_by_role("button", name="Stop").click()
    await expect(answer).to_contain_text("stopped by alice")
    await expect(answer).to_have_attribute("data-seq", "2")
    await expect(answer.locator(".text")).to_have_text("one")
    assert await room.stored() == ["what now?", "one "]


async def test_an_answer_is_written_again_with_its_steps(chat: ChatPage, room: Room) -> None:
    """§5: the new answer stands below; the one before is closed, and there for who asks."""
    answers = chat.page.get_by_role("article", name="Assistant")
    room.assistant.answer_with([chunk("one"), DONE])
    await chat.send("what now?", mode="Plan")
    await expect(answers.locator(".text")).to_have_text("one")
    room.assistant.answer_with([
        delta_chunk(reasoning_content="Let me "),
        delta_chunk(reasoning_content="see."),
        call_chunk(0, "call_1", "search", '{"query":'),
        call_chunk(0, None, None, '"plans"}'),
        chunk("two"), DONE,
    ])  # fmt: skip
    await answers.get_by_role("button", name="Regenerate").click()
    before, after = answers.first, answers.last
    await expect(after).to_have_attribute("data-seq", "3")
    await expect(after.locator(".text")).to_have_text("two")
    await expect(before).to_contain_text("answered again below")
    await expect(before.locator(".text")).to_be_hidden()
    await before.get_by_role("button", name="Show it").click()
    await expect(before.locator(".text")).to_have_text("one")
    await expect(answers.get_by_role("button", name="Regenerate")).to_have_count(1)

    await after.get_by_text("2 steps").click()
    steps = after.locator(".parts")
    assert await steps.locator(".step").all_inner_texts() == ["Reasoning", "Call of search"]
    said = await steps.locator("pre").all_inner_texts()
    assert said == ["Let me see.", '{\n "query": "plans"\n}']
    assert await room.stored() == ["what now?", "one", "two"]


async def test_a_queued_build_is_shown_and_cancelled(chat: ChatPage) -> None:
    """§8: the build stands below the conversation until its message ends it."""
    await chat.send("make it", mode="Build")
    build = chat.page.get_by_role("region", name="Build")
    await expect(build).to_contain_text("Build waits for a worker")
    await build.get_by_role("button", name="Cancel build").click()
    await expect(build).to_have_count(0)
    await expect(chat.page.get_by_role("article", name="Assistant")).to_contain_text("build failed")


async def test_nothing_is_lost_when_the_service_is_killed(chat: ChatPage, room: Room) -> None:
    """§6: what others wrote and what one wrote oneself meanwhile are there, in order and once."""
    await chat.send("before")
    await expect(chat.message("before")).to_have_attribute("data-seq", "1")
    await room.service.kill()
    await expect(chat.page.get_by_role("button", name="Try now")).to_be_visible()
    await chat.send("meanwhile")
    await expect(chat.message("meanwhile")).to_contain_text("sending")
    await room.service.start()
    await room.bob.post(room.id, "after")
    await wait_until(lambda: _live_again(chat), timeout_s=30, what="the stream")
    await wait_until(lambda: _has(chat, [1, 2, 3]), timeout_s=30, what="all three")
    assert await chat.texts() == await room.stored()
    assert sorted(await chat.texts()) == ["after", "before", "meanwhile"]


async def _live_again(chat: ChatPage) -> bool:
    """The network is said to be back, so that the test need not wait for the next attempt."""
    await chat.page.evaluate("dispatchEvent(new Event('online'))")
    return await chat.status.inner_text() == "Live"


async def test_a_message_that_failed_offline_is_retried_once(
    context: BrowserContext, room: Room
) -> None:
    """G5: a failed message stays with the choice to retry it; a retry stores it once."""
    await context.clock.install()
    chat = await ChatPage.open(context, room.service, room.id)
    await context.set_offline(True)
    await expect(chat.status).to_have_text("Your device has no network")
    await chat.send("on the train")
    await context.clock.fast_forward("00:35")
    failed = chat.message("on the train")
    await expect(failed).to_contain_text("not sent")
    await context.set_offline(False)
    await failed.get_by_role("button", name="Retry").click()
    await expect(failed).to_have_attribute("data-seq", "1")
    await expect(failed.get_by_role("button")).to_have_count(0)
    assert await room.stored() == ["on the train"]


async def test_a_refused_message_can_be_discarded(chat: ChatPage, room: Room) -> None:
    """§4: the reason is shown with the message; discarding it stores nothing."""
    body = '{"error": "Not this", "code": "VALIDATION_FAILED", "requestId": "1"}'
    await chat.page.route("**/chat/messages", lambda route: route.fulfill(status=400, body=body))
    await chat.send("refused")
    refused = chat.message("refused")
    await expect(refused).to_contain_text("not sent: Not this")
    await refused.get_by_role("button", name="Discard").click()
    await expect(refused).to_have_count(0)
    await expect(chat.field).to_be_focused()
    assert await room.stored() == []


async def test_scrolling_up_shows_the_history_and_keeps_the_place(
    context: BrowserContext, room: Room
) -> None:
    """Older messages come above what is read, which does not move; a new one does not pull down."""
    await room.fill(180)
    chat = await ChatPage.open(context, room.service, room.id)
    await expect(chat.message("message 180")).to_be_in_viewport()
    scroller = chat.page.get_by_role("region", name="Conversation")
    # In one step: older messages are fetched as soon as the start is near.
    first, before = await scroller.evaluate(_SCROLL_UP)
    mark = chat.page.locator(f"[data-seq='{first + 4}']")
    await wait_until(lambda: _grew(chat, first), what="older messages")
    assert abs(await mark.evaluate(_TOP) - before) <= 1
    await room.bob.post(room.id, "news")
    await expect(chat.message("news")).to_be_attached()
    assert abs(await mark.evaluate(_TOP) - before) <= 1
    await chat.page.get_by_role("button", name="New messages").click()
    await expect(chat.message("news")).to_be_in_viewport()
    await scroller.evaluate("all => { all.scrollTop = 0 }")
    await wait_until(lambda: _has(chat, list(range(1, 182))), what="the whole history")
    await expect(chat.page.get_by_text("This is the beginning")).to_be_visible()


async def _grew(chat: ChatPage, first: int) -> bool:
    return (await chat.seqs())[0] < first


async def _has(chat: ChatPage, seqs: list[int]) -> bool:
    return await chat.seqs() == seqs


async def test_a_change_renders_one_message_again(context: BrowserContext, room: Room) -> None:
    """A list of hundreds is not rendered anew: only the row that is new is touched."""
    await room.fill(200)
    chat = await ChatPage.open(context, room.service, room.id)
    await chat.page.evaluate(
        """() => {
          window.changes = 0;
          const seen = (records) => { window.changes += records.length; };
          new MutationObserver(seen).observe(document.querySelector("[role=log]"),
            {subtree: true, childList: true, characterData: true, attributes: true});
        }"""
    )
    await room.bob.post(room.id, "one more")
    await expect(chat.message("one more")).to_be_in_viewport()
    assert await chat.page.evaluate("window.changes") < 20


async def test_the_page_is_used_by_keyboard_alone(chat: ChatPage, room: Room) -> None:
    """Tab order, a skip link, Enter and Shift+Enter, arrows for the mode; the focus is visible."""
    keyboard = chat.page.keyboard
    await chat.page.evaluate("document.activeElement.blur()")
    await keyboard.press("Tab")
    await expect(chat.page.get_by_role("link", name="Skip to the message field")).to_be_focused()
    await keyboard.press("Enter")
    await expect(chat.field).to_be_focused()
    await keyboard.type("first line")
    await keyboard.press("Shift+Enter")
    await keyboard.type("second line")
    await keyboard.press("Enter")
    await expect(chat.message("first line\nsecond line")).to_have_attribute("data-seq", "1")
    await expect(chat.field).to_be_focused()
    await expect(chat.field).to_have_value("")
    await keyboard.press("Tab")
    await expect(chat.page.get_by_role("radio", name="Chat")).to_be_focused()
    await keyboard.press("ArrowRight")
    await expect(chat.page.get_by_role("radio", name="Plan")).to_be_checked()
    await keyboard.press("Shift+Tab")
    await keyboard.type("x")
    for expected in ("Plan", "Send"):
        await keyboard.press("Tab")
        focused = chat.page.locator(":focus-visible")
        await expect(focused).to_have_accessible_name(expected)


async def test_a_phone_shows_all_of_it(browser: Browser, room: Room) -> None:
    """390 px: nothing is cut off at the side, fields are large enough for fingers and eyes."""
    await room.bob.post(room.id, "a" * 300)
    await room.bob.post(room.id, f"https://example.test/{'b' * 200}")
    async with await browser.new_context(
        viewport=_PHONE, is_mobile=True, has_touch=True, color_scheme="dark"
    ) as context:
        chat = await ChatPage.open(context, room.service, room.id)
        await expect(chat.messages).to_have_count(2)
        for selector in ("html", "[role=region]"):
            cut = await chat.page.locator(selector).evaluate("e => e.scrollWidth - e.clientWidth")
            assert cut == 0, selector
        size = "e => parseFloat(getComputedStyle(e).fontSize)"
        assert await chat.field.evaluate(size) >= 16
        box = await chat.page.get_by_role("button", name="Send").bounding_box()
        assert box is not None
        assert box["height"] >= 44
        assert box["y"] + box["height"] <= _PHONE["height"]


async def test_a_link_from_before_leads_to_the_page_and_hides_the_token(
    context: BrowserContext, room: Room
) -> None:
    """The fragment survives the redirect of `/demo`; the page takes it out of the address."""
    chat = await ChatPage.open(context, room.service, room.id, path="/demo")
    assert chat.page.url == f"{room.service.url}/chat"
    await chat.page.reload()
    await chat.is_live()
    assert chat.problems == []


async def test_a_cookie_is_enough(context: BrowserContext, room: Room) -> None:
    """§3: `/chat?project=` with the cookie alone; one's own messages are still known as such."""
    cookie = {
        "name": "seqstream_token",
        "value": token("alice", scope="read write"),
        "url": room.service.url,
    }
    await context.add_cookies([cookie])  # type: ignore[list-item]
    chat = ChatPage(await context.new_page())
    await chat.page.goto(f"{room.service.url}/chat?project={room.id}")
    await chat.is_live()
    await chat.send("by cookie")
    await expect(chat.message("by cookie")).to_have_attribute("data-seq", "1")
    await expect(chat.page.get_by_role("article", name="You")).to_have_count(1)
    assert chat.problems == []


async def test_the_end_of_access_is_said(context: BrowserContext, room: Room) -> None:
    """§3: a member who was removed reads why, and nothing pretends to be live."""
    member = await ChatPage.open(context, room.service, room.id, user="bob")
    await room.alice.request("DELETE", f"/v1/projects/{room.id}/members/bob")
    alert = member.page.get_by_role("alert")
    await expect(alert).to_contain_text("no access to this project")
    await expect(member.status).to_have_text("Not connected")


@pytest.mark.parametrize(
    ("fragment", "sentence"),
    [("", "This page needs a project"), (token("a", ttl_s=-1), "Your access has ended")],
)
async def test_a_page_without_access_says_so(
    context: BrowserContext, service: ServiceProcess, fragment: str, sentence: str
) -> None:
    """No token, or one that has ended: no request is made, the field stays closed."""
    chat = ChatPage(await context.new_page())
    await chat.page.goto(f"{service.url}/chat#{fragment}")
    await expect(chat.page.get_by_role("alert")).to_contain_text(sentence)
    await expect(chat.field).to_be_disabled()
    assert chat.problems == []
