"""Slack delivers twice, late, and beside itself: is each message one job? `python -m benchmarks.redelivered`.

1,000 mentions go through a fake Slack into the real door, desk and queue, over an engine that draws one colour. Each
is delivered two to four times: some at once, some beside others, some after the service was ended and started again
between them, as `app_mention` and as `message` by turns. Then there must be 1,000 messages, jobs and answers.
"""

import argparse
import asyncio
import platform
import random
import tempfile
import time
from contextlib import AsyncExitStack
from datetime import date
from pathlib import Path

from pydantic import SecretStr

from bot.platforms import slack
from engine.database import jobs, messages, replies
from tests.end_to_end.test_doors import Studio, studio
from tests.fakes.slack import ME, FakeSlack

RESTARTS = 3


def event(number: int, kind: str) -> dict[str, object]:
    said = {"type": kind, "channel": f"C{number % 20}", "channel_type": "channel", "user": f"U{number % 50}"}
    return said | {"ts": f"{number}.0", "text": f"<@{ME}> a fox, seed {number}"}


async def deliver(fake: FakeSlack, numbers: list[int], dice: random.Random) -> int:
    """Send an event for each number, all at once, and wait until each is acknowledged."""
    envelopes = [await fake.event(event(n, dice.choice(("message", "app_mention")))) for n in numbers]
    await asyncio.gather(*(acknowledged(fake, envelope) for envelope in envelopes))
    return len(numbers)


async def acknowledged(fake: FakeSlack, envelope: str) -> None:
    async with asyncio.timeout(120):
        while envelope not in fake.acks:
            await asyncio.sleep(0.01)


async def all_answered(made: Studio, wanted: int) -> None:
    async with asyncio.timeout(300):
        while await made.count(replies, "sent") < wanted:
            await asyncio.sleep(0.1)


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    dice, began, sent = random.Random(args.seed), time.monotonic(), 0
    deliveries = [n for n in range(1, args.n + 1) for _ in range(dice.randint(2, 4))]
    dice.shuffle(deliveries)
    rounds = [deliveries[k :: RESTARTS + 1] for k in range(RESTARTS + 1)]
    with tempfile.TemporaryDirectory() as folder:
        async with FakeSlack() as fake:
            said = slack.Settings(bot_token=SecretStr("xoxb-1"), app_token=SecretStr("xapp-1"), base_url=fake.base_url)
            for number, part in enumerate(rounds, 1):
                async with AsyncExitStack() as stack:
                    made = await stack.enter_async_context(
                        studio(Path(folder), "slack", lambda house: slack.open_door(said, house))
                    )
                    await fake.connected(number)
                    for k in range(0, len(part), 50):
                        sent += await deliver(fake, part[k : k + 50], dice)
                    if number == len(rounds):
                        await all_answered(made, args.n)
                        found = [await made.count(table) for table in (messages, jobs, replies)]
                        done = await made.count(jobs, "done")
    print(f"{date.today()} · {platform.machine()}, Python {platform.python_version()}")
    print(f"{sent} deliveries of {args.n} messages over {RESTARTS} restarts in {time.monotonic() - began:.0f} s")
    posted = len(fake.called("files.completeUploadExternal"))
    print(f"messages, jobs, answers: {found}; jobs done: {done}; pictures posted: {posted}")
    return 0 if found == [args.n] * 3 and done == args.n else 1


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
