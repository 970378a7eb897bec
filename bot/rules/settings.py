"""What a person says of a channel: 'here, always coral', 'pictures dropped here are for training'."""

from bot.intent import BRAND, Setting
from bot.rules.lexicon import Lexicon
from bot.rules.mentions import read_mentions
from bot.rules.text import Text, compiled

PLACE = r"(?:(?:in|for) (?:this|our) (?:channel|chat|conversation|thread)|here)"
ALWAYS = (
    rf"^(?:please\s+)?{PLACE}[,:]?\s+(?:please\s+)?always\s+(?:use\s+|draw\s+(?:in|with)\s+|in\s+)?(?P<what>.+?)[.!]*$",
    rf"^(?:please\s+)?always\s+(?:use\s+|draw\s+(?:in|with)\s+)(?P<what>.+?)\s+{PLACE}[.!]*$",
    rf"^(?:please\s+)?{PLACE}[,:]?\s+(?:please\s+)?use\s+(?P<what>.+?)\s+(?:always|by default|from now on)[.!]*$",
)
NEVER = (
    rf"^(?:please\s+)?(?:{PLACE}[,:]?\s+)?(?:stop|no longer|don't|do not)\s+(?:always\s+)?(?:use|using|drawing in)\b"
    rf".*\b(?:{PLACE}|by default)[.!]*$",
    r"^(?:please\s+)?(?:forget|clear|remove|drop)\s+(?:the\s+)?defaults?\b.*[.!]*$",
)
DROPS = r"(?:(?:pictures?|images?|files?|photos?)\s+)?(?:that (?:are|we|i)\s+)?(?:drop(?:ped|ping)?|post(?:ed|ing)?)"
TRAINS = (
    rf"^{DROPS}\b(?>.*?\bhere\b).*\b(?:train|training|learn)\b",
    r"^this (?:channel|chat|thread) is (?:now )?(?:for|a) training(?: channel)?[.!]*$",
)
NO_TRAINING = (
    rf"^{DROPS}\b(?>.*?\bhere\b)(?>.*?\b(?:not|no longer|never)\b).*\btrain",
    r"^this (?:channel|chat|thread) is (?:not|no longer) (?:for|a) training(?: channel)?[.!]*$",
)


def read_setting(said: str, lexicon: Lexicon) -> Setting | None:
    """None where it is nothing of the kind. What is no LoRA stays in `always` as it was said, to be refused by name."""
    if any(compiled(form).search(said) for form in NO_TRAINING):
        return Setting(kind="setting", always=None, trains=False)
    if any(compiled(form).search(said) for form in TRAINS):
        return Setting(kind="setting", always=None, trains=True)
    if any(compiled(form).search(said) for form in NEVER):
        return Setting(kind="setting", always=(), trains=None)
    for form in ALWAYS:
        if match := compiled(form).search(said):
            mentions = read_mentions(Text(match["what"]), lexicon)
            names = tuple(card.name for card in mentions.cards) or ((BRAND,) if mentions.brand else ())
            return Setting(kind="setting", always=names or (match["what"],), trains=None)
    return None
