"""chat: the conversation on this terminal, or one message a line on a pipe."""

from bot.commands.terminal import Terminal
from bot.platforms.console import Console
from bot.wiring import Studio, open_assistant


async def chat(studio: Studio, terminal: Terminal) -> None:
    assistant = open_assistant(studio)
    try:
        await Console(as_json=terminal.as_json).serve(assistant.answer)
    finally:
        await assistant.close()
