"""Surgery on the words of a picture: swaps, colours, things added and taken out. Pure: Scene in, Scene out."""

import re

from bot.intent import Change, Scene, Swap
from bot.manners import in_mood, kind_of, moods, without_rivals
from bot.prompts import load, words


def scene_after(intent: Change, scene: Scene) -> Scene:
    """Surgery on the words: swaps, colour, things added and taken out, place and style."""
    subject, place = scene.subject, scene.place if intent.place is None else _placed(intent.place, scene.place)
    for swap in intent.swaps:
        subject, place = _swap(swap, subject, place)
    if intent.colour:
        subject = _coloured(intent.colour, subject)
    for thing in intent.remove:
        subject, place = _removed(thing, subject), "" if whole_word(thing).search(place) else place
    avoid = ", ".join(
        dict.fromkeys(
            [
                *([scene.avoid] if scene.avoid else []),
                *(t for t in intent.remove if not whole_word(t).search(f"{scene.subject} {scene.place}")),
            ]
        )
    )
    for thing in intent.add:
        subject = _added(thing, subject)
    style = scene.style if intent.style is None else intent.style
    return Scene(subject=with_articles(subject.strip(" ,")), place=place, style=style, avoid=avoid)


def _placed(new: str, old: str) -> str:
    """A new background stays behind what a product stands on: 'on a podium, teal background'."""
    stage = old.split(", ")[0]
    stands = re.search(rf"\b(?:{'|'.join(words('product', 'stages'))})\b", stage) and not stage.endswith("background")
    return f"{stage}, {new}" if stands and re.fullmatch(r"(?:[\w-]+ ){1,3}background", new) else new


def whole_word(text: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(text)}(?:e?s)?(?!\w)", re.IGNORECASE)


def _swap(swap: Swap, subject: str, place: str) -> tuple[str, str]:
    """Without `old` the whole subject is replaced; a name that is not there counts as the subject too."""
    if swap.old and whole_word(swap.old).search(place) and not whole_word(swap.old).search(subject):
        return subject, _replaced(place, swap.old, swap.new)
    if swap.old and whole_word(swap.old).search(subject):
        return _replaced(subject, swap.old, swap.new), place
    return (f"{swap.new}" if not swap.old or len(swap.new.split()) > 1 else f"a {swap.new}"), place


def _replaced(text: str, old: str, new: str) -> str:
    """`new` in the place of `old`; its colour and article go with it unless `new` brings its own."""
    core = re.sub(r"^(?:an?|the|some)\s+", "", new)
    brings = core != new
    pattern = rf"(?:\b(an?|the)\s+)?(?<!\w){re.escape(old)}(?:e?s)?(?!\w)"

    def put(match: re.Match[str]) -> str:
        return new if brings else f"{match[1]} {core}" if match[1] else core

    text = re.sub(pattern, put, text, count=1, flags=re.IGNORECASE)
    return re.sub(r"\b(an?|the)\s+([\w-]+)\s+(?:an?|the)\s+", r"\1 \2 ", text)


def _coloured(colour: Swap, subject: str) -> str:
    """A colour for the thing named, or for the first thing; it takes the place of one that is there."""
    known = "|".join(sorted(colours(), key=len, reverse=True))
    if colour.old and whole_word(colour.old).search(subject):
        return re.sub(
            rf"(?:\b(?:{known})\s+)?(?<!\w){re.escape(colour.old)}(?!\w)",
            f"{colour.new} {colour.old}",
            subject,
            count=1,
            flags=re.IGNORECASE,
        )
    if colour.old:
        return f"{subject} with a {colour.new} {colour.old}"
    replaced, count = re.subn(rf"\b(?:{known})\b", colour.new, subject, count=1, flags=re.IGNORECASE)
    if count:
        return replaced
    match = re.match(
        r"((?:an?|the|some|two|three|four)\s+(?:(?:small|large|big|little)\s+)?)?(.*)$", subject, re.IGNORECASE
    )
    head, rest = (match[1] or "", match[2]) if match else ("", subject)
    return f"{head}{colour.new} {rest}"


def colours() -> tuple[str, ...]:
    return tuple(load("words")["colours"]["plain"])


def _removed(thing: str, subject: str) -> str:
    """Takes the thing out with the words that tie it: 'with a hat', 'and a fox'."""
    tie = r"(?:,?\s*\b(?:and|with|wearing|holding|next to|beside|to the (?:left|right) of|in|on|plus|riding)\s+)?"
    gone = re.sub(
        rf"{tie}(?:\b(?:an?|the|some|two|three|his|her)\s+)?(?:[\w-]+\s+)??(?<!\w){re.escape(thing)}(?:e?s)?(?!\w)",
        "",
        subject,
        count=1,
        flags=re.IGNORECASE,
    )
    gone = re.sub(r"^\s*(?:and|with|,)\s+", "", gone.strip())
    return gone or subject


def _added(thing: str, subject: str) -> str:
    """'on the left' says where, 'waving' what it does, 'from above' how it is seen; anything else comes with it."""
    if re.match(r"(?:on the (?:left|right)|in the center)$", thing):
        bare = re.sub(r"\s*\b(?:on the (?:left|right)|in the center)\b", "", subject)
        return f"{bare} {thing}"
    if re.fullmatch(moods(), thing, re.IGNORECASE):
        return in_mood(thing, subject)
    if kind_of(thing):
        tie = " " if re.match(r"(?:seen )?from\b", thing) else ", "
        return f"{without_rivals(thing, subject)}{tie}{thing}"
    if re.match(r"\w+ing\b|(?:next to|beside|near|in front of|behind|above|below|under)\b", thing):
        return f"{subject} {thing}"
    article = "" if re.match(r"(?:an?|the|some|two|three|four|more)\b", thing) or thing.endswith("s") else "a "
    return f"{subject} and {article}{thing}" if " and " not in subject else f"{subject}, {article}{thing}"


_SILENT_H = r"(?:hour|honest|honou?r|heir)"
_AS_YOU = r"(?:u(?:ni(?![mn])|s[aeu]|ti|ku|fo\b|biq|r[aio])|eu|ewe|one\b|once\b)"  # begin with no vowel to the ear
_VOWEL = rf"(?:(?!{_AS_YOU})[aeiou]|{_SILENT_H})"
_MARK = r"(?=[(\[]*{})"  # marks of emphasis may stand before the word


def with_articles(text: str) -> str:
    """'a apple' → 'an apple', and back; what is no lower-case word ('an 8-bit', 'an LP') stays as it was said."""
    text = re.sub(rf"\b([Aa]) {_MARK.format(_VOWEL)}", r"\1n ", text)
    return re.sub(rf"\b([Aa])n {_MARK.format(rf'(?!{_SILENT_H})(?:{_AS_YOU}|[b-df-hj-np-tv-z])')}", r"\1 ", text)
