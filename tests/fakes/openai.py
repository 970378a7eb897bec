"""A server of chat completions on this machine, that answers as it is told to."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from bot.settings import Llm

NO_FRAME = {"count": None, "width": None, "height": None, "shape": None, "seed": None, "steps": None,
            "ratio": None, "upscale": None, "transparent": None}  # fmt: skip


def draw(subject: str, *loras: tuple[str, float | None], kind: str = "draw", **fields: Any) -> dict[str, Any]:
    """A new picture in full, as a model fills it in."""
    scene = {"subject": subject, "place": "", "style": "", "avoid": ""}
    wishes = [{"name": name, "weight": weight} for name, weight in loras]
    said = {"kind": kind, "scene": scene, "loras": wishes, "without": [], "strength": None, "frame": NO_FRAME}
    return said | fields


class FakeOpenAI:
    """`answers` are given one by one, the last of them for ever. `asked` holds the body of every request.

    A table is an intent; "refusal", "cut off", "filtered", "page", "nothing" and "hang" are what they say; a number is
    a status; other text is the content as it stands.
    """

    def __init__(self) -> None:
        self.answers: list[Any] = [draw("a fox")]
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.url = ""
        self._over = asyncio.Event()

    @property
    def llm(self) -> Llm:
        return Llm.model_validate({"base_url": f"{self.url}/v1", "model": "tiny", "key": "sk-canary"})

    @asynccontextmanager
    async def open(self) -> AsyncGenerator["FakeOpenAI"]:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._complete)
        async with TestServer(app) as server:
            self.url = str(server.make_url("")).rstrip("/")
            try:
                yield self
            finally:
                self._over.set()

    async def _complete(self, request: web.Request) -> web.Response:
        self.asked.append(await request.json())
        self.keys.append(request.headers["Authorization"].removeprefix("Bearer "))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer == "hang":
            await self._over.wait()
        if answer == "page":
            return web.Response(text="<h1>Sign in</h1>", content_type="text/html")
        if isinstance(answer, int):
            error = {"message": f"no: {self.asked[-1]['messages'][-1]['content']} {self.keys[-1]}"}
            return web.json_response({"error": error}, status=answer)
        return web.json_response(_completion(answer))


def _completion(answer: Any) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer, "refusal": None}
    if isinstance(answer, dict):
        message["content"] = json.dumps({"intent": answer})
    if answer == "refusal":
        message |= {"content": None, "refusal": "I will not."}
    reason = {"cut off": "length", "filtered": "content_filter"}.get(str(answer), "stop")
    choices = [] if answer == "nothing" else [{"index": 0, "finish_reason": reason, "message": message}]
    return {"id": "1", "object": "chat.completion", "created": 0, "model": "tiny", "choices": choices}
