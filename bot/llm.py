"""From a message to an intent by a language model; whatever goes wrong with that, by the rules.

It is sent the message, how many pictures came with it, the thread's last order and the names of the LoRAs: no picture,
no file's name, nobody's name. What it answers is an intent and does nothing: checked here, it is planned as any other.
"""

import asyncio
import json
import logging
import math
import time
from collections.abc import Iterator
from typing import Any, TypeVar, cast

from openai import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AsyncOpenAI,
    ContentFilterFinishReasonError,
    LengthFinishReasonError,
)
from pydantic import ValidationError

from bot.conversation import Conversation
from bot.intent import BRAND, AskBack, Intent, Reading, Strict, Train
from bot.interpreter import Interpreter, pictures
from bot.message import Inbound, printable
from bot.prompts import examples, load
from bot.rules.text import plain
from bot.settings import Llm
from engine.bases.vocabulary import Vocabulary
from engine.catalog import Catalog
from engine.errors import UnknownLora
from engine.plans import MAX_PROMPT

log = logging.getLogger(__name__)

TIMEOUT = 8.0  # seconds of one attempt
RETRYING = 2.0  # seconds more for both attempts together
PAUSE = 30.0  # seconds in which a server that gave no answer is not waited for again
LONGEST = 20_000  # characters of an answer
LONGEST_QUESTION = 300  # characters
FEW = 3  # examples of each kind
NO_API = "what answers there is no chat completions API"
Form = TypeVar("Form", bound=Strict)


class Unusable(Exception):
    """An answer that is not taken; says why in words of ours alone."""


class Ping(Strict):
    """What a model is asked for to see that it answers in the form that it is given."""

    ready: bool


class LlmInterpreter:
    """Satisfies `Interpreter`. `close` it in the end."""

    def __init__(
        self,
        llm: Llm,
        fallback: Interpreter,
        catalog: Catalog,
        vocabulary: Vocabulary | None,
        timeout: float = TIMEOUT,
    ) -> None:
        self._client = _client(llm, timeout, retries=1)
        self._model = llm.model
        self._fallback = fallback
        self._catalog = catalog
        self._vocabulary = vocabulary
        self._longest = timeout + RETRYING
        self._told: set[str] = set()
        self._pauses_until = 0.0

    async def read(self, talk: Conversation, message: Inbound) -> Intent:
        said = plain(message.text).strip()
        if not said or time.monotonic() < self._pauses_until:  # not said: only pictures
            return await self._fallback.read(talk, message)
        try:
            async with asyncio.timeout(self._longest):
                intent = _checked(await self._asked(said, talk, message), self._catalog)
        except Exception as error:  # whatever the server or its client comes up with, the person is answered
            self._tell(error)
            return await self._fallback.read(talk, message)
        if isinstance(intent, Train) and intent.replace:
            return await self._replacing(intent, talk, message)
        return intent

    async def close(self) -> None:
        await self._client.close()

    async def _asked(self, said: str, talk: Conversation, message: Inbound) -> Reading:
        state = {"message": said, "attached": len(pictures(message)), "last": _last(talk)}
        answer = await self._client.chat.completions.parse(
            model=self._model,
            messages=[
                {"role": "system", "content": system_prompt(self._catalog, self._vocabulary)},
                {"role": "user", "content": json.dumps(state, ensure_ascii=False)},
            ],
            response_format=Reading,
        )
        return _parsed(answer, Reading)

    async def _replacing(self, intent: Train, talk: Conversation, message: Inbound) -> Train:
        """A LoRA is replaced only where the rules find the person's own word for it too."""
        rules = await self._fallback.read(talk, message)
        return intent.model_copy(update={"replace": isinstance(rules, Train) and rules.replace})

    def _tell(self, error: Exception) -> None:
        if isinstance(error, TimeoutError | APIConnectionError):
            self._pauses_until = time.monotonic() + PAUSE
        why = _why(error)
        if why not in self._told:
            self._told.add(why)
            log.warning("the rules read in place of the language model: %s (said once)", why)


async def check(llm: Llm, timeout: float = TIMEOUT) -> str | None:
    """One tiny request: None if the model answers as it should, else why not, in words of ours alone."""
    try:
        async with asyncio.timeout(timeout), _client(llm, timeout, retries=0) as client:
            answer = await client.chat.completions.parse(
                model=llm.model,
                messages=[{"role": "user", "content": 'Answer {"ready": true} and nothing else.'}],
                response_format=Ping,
            )
            _parsed(answer, Ping)
    except Exception as error:  # as in `read`
        return _why(error)
    return None


def system_prompt(catalog: Catalog, vocabulary: Vocabulary | None) -> str:
    """prompts/interpreter.toml with what there is in this studio."""
    loras = [card.model_dump(include={"name", "kind", "title", "aliases", "summary"}) for card in catalog.list()]
    words = ", ".join(vocabulary.shown) if vocabulary else "any"
    return load("interpreter")["system"].format(loras=_lines(loras), words=words, examples=_lines(_examples()))


def _client(llm: Llm, timeout: float, retries: int) -> AsyncOpenAI:
    key = llm.key.get_secret_value() or "none"  # the client wants one, a server of one's own may not
    return AsyncOpenAI(base_url=llm.base_url, api_key=key, timeout=timeout, max_retries=retries)


def _lines(tables: list[dict[str, Any]]) -> str:
    return "\n".join(json.dumps(table, ensure_ascii=False) for table in tables)


def _examples() -> list[dict[str, Any]]:
    shown: dict[str, list[dict[str, Any]]] = {}
    for example in examples():
        said = {"message": example["text"], "attached": example.get("attached", 0)}
        last = {"last": "a red mug on a podium" if example.get("last") else None}
        intent = {"intent": {"kind": example["intent"], **example.get("says", {})}}
        shown.setdefault(example["intent"], []).append(said | last | intent)
    return [example for kind in shown.values() for example in kind[:FEW]]


def _last(talk: Conversation) -> dict[str, Any] | None:
    """The thread's last order as data."""
    if talk.last is None:
        return None
    order = talk.last.order
    return {
        "kind": order.genre,
        "scene": order.scene.model_dump(),
        "loras": [{"name": chosen.name, "weight": chosen.weight} for chosen in order.stack],
        "frame": order.frame.model_dump(exclude_none=True),
        "pictures": talk.last.plan.count,
    }


def _parsed(answer: Any, model: type[Form]) -> Form:
    """What the model said, as the client has validated it."""
    choices = getattr(answer, "choices", None)
    if not choices:
        raise Unusable(NO_API)
    message = choices[0].message
    if message.refusal:
        raise Unusable("it refused")
    if len(message.content or "") > LONGEST:
        raise Unusable("its answer is too long")
    if not isinstance(message.parsed, model):
        raise Unusable("its answer is empty")
    return message.parsed


def _checked(reading: Reading, catalog: Catalog) -> Intent:
    """The intent with each LoRA by the name on its card. Raises `Unusable`, or `UnknownLora` for one there is not."""
    said = reading.model_dump()
    for value in _leaves(said):
        if isinstance(value, str) and (len(value) > MAX_PROMPT or printable(value) != value):
            raise Unusable("a text in its answer is too long or not printable")
        if isinstance(value, float) and not math.isfinite(value):
            raise Unusable("a number in its answer is none")
    intent = Reading.model_validate({"intent": _by_card(said["intent"], catalog)}).intent
    if isinstance(intent, AskBack) and ("://" in intent.question or len(intent.question) > LONGEST_QUESTION):
        raise Unusable("it asks back at length, or with a link")
    return intent


def _by_card(said: dict[str, Any], catalog: Catalog) -> dict[str, Any]:
    def own(name: str | None) -> str | None:
        return name if name in (BRAND, None) else catalog.get(name).name

    changed: dict[str, Any] = {}
    for field in {"loras", "nudges"} & said.keys():
        changed[field] = [wish | {"name": own(wish["name"])} for wish in said[field]]
    for field in {"without", "always"} & said.keys():
        changed[field] = said[field] and [name if name == "all" else own(name) for name in said[field]]
    return said | changed


def _leaves(said: Any) -> Iterator[Any]:
    if isinstance(said, dict):
        said = tuple(cast(dict[str, Any], said).values())
    if isinstance(said, list | tuple):
        for part in cast(tuple[Any, ...], said):
            yield from _leaves(part)
    else:
        yield said


def _why(error: Exception) -> str:
    """The cause, with nothing that a person or a server said."""
    match error:
        case Unusable():
            return str(error)
        case TimeoutError() | APITimeoutError():
            return "it did not answer in time"
        case APIStatusError():
            return f"it answers with HTTP status {error.status_code}"
        case APIConnectionError():
            return "it cannot be reached"
        case LengthFinishReasonError() | ContentFilterFinishReasonError():
            return "its answer was cut off"
        case ValidationError() | UnknownLora():
            return "its answer is not of the form that was asked for, or names a LoRA that there is not"
        case AttributeError():  # so the client fails over a web page
            return NO_API
        case _:
            return f"its client failed with {type(error).__name__}"
