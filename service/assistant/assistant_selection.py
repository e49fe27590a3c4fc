"""Which assistant a service has: an OpenAI-compatible endpoint, or the built-in one."""

from __future__ import annotations

from service.assistant.assistants import Assistant
from service.assistant.built_in_assistant import BuiltIn
from service.assistant.chat_completions import ChatCompletions
from service.settings import Settings


def assistant_of(settings: Settings) -> Assistant:
    """Return the assistant that the settings select."""
    if settings.assistant_url is None:
        return BuiltIn()
    return ChatCompletions(
        settings.assistant_url,
        settings.assistant_model or "",
        settings.assistant_key,
        timeout_s=settings.assistant_timeout_s,
    )
