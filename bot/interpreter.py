"""From a message to an intent, by rules: no key, no network, the same reading every time.

The order is the design: is it a question, then an order to learn, then a picture done over in a style, then a change
of the last picture, then a new picture, and of which kind.
"""

import re
from collections.abc import Iterable
from typing import Any, Protocol

from bot.conversation import Conversation
from bot.intent import (
    BRAND,
    AskBack,
    BrandAsset,
    Change,
    Character,
    Draw,
    Frame,
    Genre,
    Intent,
    LoraWish,
    ProductShot,
    Question,
    Scene,
    StyleTransfer,
)
from bot.manners import is_manner
from bot.message import Attachment, Inbound
from bot.prompts import load, words
from bot.rules.acts import (
    PRONOUN,
    edits,
    is_question,
    is_training,
    opened,
    refers_back,
    starts_anew,
    transfers_style,
    without_courtesy,
)
from bot.rules.changes import more_count, read_edits, take_nudges
from bot.rules.lexicon import LIVING, Lexicon
from bot.rules.measures import take_frame, take_strength
from bot.rules.mentions import Mentions, read_mentions
from bot.rules.questions import is_thanks, read_question
from bot.rules.scenes import bare, read_scene, take_style
from bot.rules.sending import read_sending
from bot.rules.settings import read_setting
from bot.rules.text import NUMBER, Text, any_of, compiled, is_deed, participle, plain, strip_start, tidy, with_plurals
from bot.rules.training import points_at_pictures, read_training
from engine.bases.vocabulary import Vocabulary
from engine.catalog import Catalog

ENOUGH = 4  # pictures that training takes at least
ASK_WHAT = "What shall I do with {these}: learn a LoRA from {them}, change {them}, or draw {them} in a style?"
ASK_SUBJECT = "What shall I draw?"
ASK_PICTURES = "Which pictures shall I learn it from? Attach 4 to 30 of them, and say what it is called."
GENRES: dict[Genre, type[Draw | BrandAsset | Character | ProductShot]] = {
    "draw": Draw,
    "brand_asset": BrandAsset,
    "character": Character,
    "product_shot": ProductShot,
}


class Interpreter(Protocol):
    async def read(self, talk: Conversation, message: Inbound) -> Intent: ...
    async def close(self) -> None: ...


class RuleInterpreter:
    """Reads by the catalog's names, the base's vocabulary, and the word lists of `prompts/`."""

    def __init__(self, catalog: Catalog, vocabulary: Vocabulary | None) -> None:
        self._catalog = catalog
        self._vocabulary = vocabulary

    async def read(self, talk: Conversation, message: Inbound) -> Intent:
        lexicon = Lexicon.of(self._catalog.list(), self._vocabulary)
        return understand(plain(message.text), pictures(message), talk, lexicon)

    async def close(self) -> None:
        """Nothing is held."""


def pictures(message: Inbound) -> tuple[Attachment, ...]:
    return tuple(a for a in message.attachments if not a.name.lower().endswith(".txt"))


def as_transfer(said: str, lexicon: Lexicon) -> str:
    """ "Make this photo a line drawing", "make the picture look like pixel art": "turn this into line drawing"."""
    picture = r"(?:this|that|the|my|our)(?: last)? (?:picture|photo|photograph|image|pic|drawing|shot)"
    wanted = rf"\bmake {picture} (?:(?:look like|into|as) )?(?:an? )?(?P<style>{lexicon.styles})\b"
    return re.sub(wanted, r"turn this into \g<style>", said, count=1, flags=re.IGNORECASE)


def understand(said: str, attached: tuple[Attachment, ...], talk: Conversation, lexicon: Lexicon) -> Intent:
    """The whole reading; pure."""
    whole = as_transfer(tidy(said) or said.strip(), lexicon)
    said = the_order(without_courtesy(whole))
    if not said and attached:
        return ask_what(len(attached))
    if not attached and (alone := read_setting(whole, lexicon) or read_sending(whole, lexicon)):
        return alone
    if is_thanks(whole):
        return Question(kind="question", topic="thanks", about="")
    if is_question(said) and not (attached and is_training(said)):
        return read_question(whole, lexicon)
    if is_training(whole) or (len(attached) >= ENOUGH and _names_it(said)):
        if not attached and not points_at_pictures(whole):
            return AskBack(kind="ask_back", missing="pictures", question=ASK_PICTURES)
        return read_training(whole, lexicon)
    if len(attached) >= ENOUGH:
        return ask_what(len(attached))
    return _about_a_picture(said, attached, talk, lexicon)


def the_order(said: str) -> str:
    """Of several sentences the one that asks for something, and the scraps that belong to it ('On a sofa.')."""
    orders, said = any_of(words("chat", "orders")), opened(said)
    said = compiled(
        rf",\s+(?:so\s+|please\s+|now\s+){{0,4}}(?={orders}\s+(?:(?:me|us)\s+)?(?:an?|the|some|our|my|"
        r"two|three|four)\b)"
    ).sub(". ", said)
    parts = [part for part in re.split(r"(?<=[a-z\d\"'][.!?;])\s+", said) if part.strip(" .!?;")]
    if len(parts) < 2 or is_question(said):
        return said
    heads = [
        i
        for i, part in enumerate(parts)
        if starts_anew(part) or compiled(rf"^(?:please\s+)?{orders}\b").match(opened(part))
    ]
    if not heads:
        return ", ".join(tidy(part) for part in parts)
    scraps = [part for part in parts[heads[-1] + 1 :] if len(part.split()) <= 8]
    return ", ".join(tidy(part) for part in (_resolved(parts[heads[-1]], parts[: heads[-1]]), *scraps))


def _resolved(part: str, before: list[str]) -> str:
    """'I sell candles. A product shot of one': 'one' is a candle."""
    things = re.findall(
        r"\b(?:sell|have|make|is|are|need|about|with)\s+(?:an?\s+|the\s+|some\s+)?([\w-]+)", " ".join(before)
    )
    if not things:
        return part
    noun = things[-1].removesuffix("s")
    return compiled(r"\b(of|with)\s+(?:one|it|them)\b").sub(rf"\1 a {noun}", part)


def ask_what(count: int) -> AskBack:
    these, them = ("this picture", "it") if count == 1 else (f"these {count} pictures", "them")
    return AskBack(kind="ask_back", missing="what", question=ASK_WHAT.format(these=these, them=them))


def _names_it(said: str) -> bool:
    return (
        compiled(
            r"\b(?:this|these|they|it|he|she)\s*(?:is|are|'s|'re)\b|\bcall(?:ed)?\b|\btrigger\b|\bname[ds]?\b"
        ).search(said)
        is not None
    )


def _about_a_picture(said: str, attached: tuple[Attachment, ...], talk: Conversation, lexicon: Lexicon) -> Intent:
    probe = Text(said)
    mentions = read_mentions(probe, lexicon)
    styled = (
        bool(mentions.of_kind("style"))
        or mentions.brand
        or any(w.name not in {c.name for c in mentions.cards} for w in mentions.wished)
        or bool(take_style(probe, lexicon))
    )
    marked = genre_of(said, mentions, lexicon)
    explicit = _is_explicit(said)
    if (
        transfers_style(said)
        and styled
        and not compiled(r"\binto (?:an?|the) (?:banner|poster|post|ad|product)\b").search(said)
    ):
        return transfer(said, lexicon)
    anew = starts_anew(said) or _repeats_the_manner(said, lexicon) or _moves_someone_new(said, talk, lexicon)
    if attached:
        return _with_picture(said, styled, explicit or anew, len(attached), lexicon)
    if talk.last is not None and _is_only_a_manner(said, lexicon):
        return change(said, lexicon)
    if (
        not anew
        and not (explicit and talk.last is None)
        and (
            refers_back(said if talk.last else _without_own_pronouns(said, lexicon))
            or (talk.last is not None and edits(said) and not explicit)
        )
    ):
        return change(said, lexicon)
    new = picture(said, lexicon)
    if (
        not new.scene.subject
        and not new.scene.place
        and not new.scene.style
        and not explicit
        and marked == "draw"
        and talk.last is None
    ):
        return _nothing_said(said)
    if talk.last is not None and not anew and not explicit and _is_fragment(new, mentions):
        return change(said, lexicon)
    if (not new.scene.subject and new.kind == "draw" and talk.last is None) or compiled(
        f"^{any_of(words('chat', 'vague'))}$"
    ).match(new.scene.subject):
        return AskBack(kind="ask_back", missing="subject", question=ASK_SUBJECT)
    return new


def _is_only_a_manner(said: str, lexicon: Lexicon) -> bool:
    """'As a story', 'can I have a small file?', 'from above': the picture that is there, shown otherwise."""
    text = Text(opened(said))
    if is_manner(text.rest):
        return True
    frame = take_frame(text, lexicon.subjects)
    return (frame.is_reshaped or frame.is_resampled) and (not bare(text.rest, lexicon) or is_manner(text.rest))


def _repeats_the_manner(said: str, lexicon: Lexicon) -> bool:
    """'A fox again', 'story post with a hat, coral style again': something new, drawn as before."""
    rest = tidy(compiled(r"\bagain\b").sub("", said))
    if rest == said or refers_back(rest) or edits(rest):
        return False
    return _is_explicit(rest) or compiled(rf"^(?:an?|{NUMBER})\s+\w").match(bare(rest, lexicon)) is not None


def _moves_someone_new(said: str, talk: Conversation, lexicon: Lexicon) -> bool:
    """'Make Inky read a book', where the last picture does not show Inky: nobody there can be changed."""
    match = compiled(rf"^(?:(?:make|let|have|get|show|draw)\s+)(?P<who>{lexicon.subjects})\s+\w").match(opened(said))
    if match is None:
        return False
    shown = {chosen.name for chosen in talk.last.order.stack} if talk.last else set[str]()
    return all(card.name not in shown for card in read_mentions(Text(match["who"]), lexicon).cards)


def _without_own_pronouns(said: str, lexicon: Lexicon) -> str:
    """'A rabbit with a carrot in its paws': where there is no picture, 'its' is of what the sentence itself names."""
    begun = bare(said, lexicon)
    is_thing = lexicon.is_noun(begun.split(" ")[0]) or compiled(rf"^(?:an?|{NUMBER}|{lexicon.subjects})\s+\w").match(
        begun
    )
    if edits(said) or not is_thing:
        return said
    return compiled(rf"(?<=\w)\s+{PRONOUN}\b").sub("", said)


def _nothing_said(said: str) -> Intent:
    rest = strip_start(opened(said), (any_of(words("chat", "greetings")), any_of(words("chat", "polite"))))
    if not rest.strip(" .!?"):
        return Question(kind="question", topic="greeting", about="")
    return AskBack(kind="ask_back", missing="subject", question=ASK_SUBJECT)


def _with_picture(said: str, styled: bool, new: bool, count: int, lexicon: Lexicon) -> Intent:
    """An attached picture and words: done over in a style, changed, or where a new one starts from."""
    if new:
        return picture(said, lexicon)
    read = change(said, lexicon)
    changes = any((read.swaps, read.add, read.remove, read.colour, read.place is not None))
    if styled and not changes:
        return transfer(said, lexicon)
    if changes or read.frame.is_reshaped or refers_back(said):
        return read
    return ask_what(count)


def _is_fragment(new: Draw | BrandAsset | Character | ProductShot, mentions: Mentions) -> bool:
    """Only a place, a style, a LoRA or numbers: said of the picture before."""
    return not new.scene.subject and not mentions.of_kind("subject", "character", "product")


def _is_explicit(said: str) -> bool:
    """Names a kind of picture: a banner, a product shot."""
    brand, product = load("words")["brand"]["assets"], words("product", "marks")
    assets = with_plurals(brand)
    named = any_of([*assets, *product])
    said = compiled(MANNER).sub(" ", said)
    return (
        compiled(
            rf"\b(?:an?|some|our|the|my|\d|two|three|four)\s+(?:[\w-]+\s+){{0,4}}{named}|(?:^|:\s*){named}"
        ).search(said)
        is not None
    )


MANNER = r"\b(?:in the (?:style|manner|look) of|looks? like|in the colou?rs of)\s+(?:an?\s+|the\s+)?[^,.;:!?]*"
ON_ONE = (
    r"\b(?:on|at|in|holding|under|next to|behind) (?:an?|the) "
    r"(?:billboard|postcard|poster|slide|tile|cover|post|banner)\b"
)


def genre_of(said: str, mentions: Mentions, lexicon: Lexicon) -> Genre:
    """The kind of picture: what it is called first, then whom it shows, then how it looks."""
    brand, roles = load("words")["brand"], words("character", "marks")
    ours = rf"\b(?:our|my|the)\s+(?:[\w-]+\s+){{0,2}}{any_of((*roles, *words('character', 'anonymous')))}"
    signs: tuple[tuple[Genre, bool], ...] = (
        ("product_shot", _is_shot(said, with_plurals(brand["assets"]))),
        ("brand_asset", _says(said, with_plurals(brand["assets"])) and not compiled(ON_ONE).search(said)),
        ("character", bool(mentions.of_kind("character"))),
        ("product_shot", bool(mentions.of_kind("product"))),
        ("character", compiled(ours).search(said) is not None),
        ("brand_asset", bool(mentions.of_kind("style")) or mentions.brand or _says(said, brand["marks"]["any"])),
        ("character", _says(said, roles)),
        ("product_shot", _is_offered(said, lexicon)),
        ("brand_asset", _is_for_a_channel(said, brand["marks"]["channels"])),
    )
    found: list[Genre] = [genre for genre, holds in signs if holds]
    return found[0] if found else "draw"


def _says(said: str, phrases: Iterable[str]) -> bool:
    return compiled(any_of(phrases)).search(said) is not None


def _is_shot(said: str, assets: Iterable[str]) -> bool:
    """Called a product shot, or made for a shop; 'a poster for our shop opening' is a poster."""
    marks = any_of(with_plurals(mark for mark in words("product", "marks") if mark != "product"))
    only_where = rf"{any_of(assets)}[^.;:!?]*\b(?:for|at|in|on|from|about)\s+(?:\w+\s+)?{marks}"
    return compiled(marks).search(said) is not None and not compiled(only_where).search(said)


def _is_for_a_channel(said: str, channels: Iterable[str]) -> bool:
    return compiled(rf"\bfor (?:our|my|the|an?)?\s*(?:[\w-]+\s+)?{any_of(channels)}").search(said) is not None


def _is_offered(said: str, lexicon: Lexicon) -> bool:
    """'our new mug on a podium': a thing of ours, set out; or 'product' itself."""
    if compiled(r"\b(?:our|my|the|a|new|this) (?:[\w-]+ )?products?\b|\bproduct (?=\w+)").search(said):
        return True
    ours = compiled(
        r"(?<!\bin )(?<!\bat )(?<!\bfor )(?<!\bfrom )(?<!\bto )(?<!\bby )(?<!\binside )(?<!\boutside )"
        r"\b(?:our|my)\s+(?:[\w-]+\s+){0,2}?([\w-]+)\b"
    ).findall(said)
    staged = compiled(any_of(words("product", "stages"))).search(said) is not None
    return staged and any(not lexicon.is_noun(w) or lexicon.nouns[lexicon.noun(w) or ""] not in LIVING for w in ours)


def picture(said: str, lexicon: Lexicon) -> Draw | BrandAsset | Character | ProductShot:
    said = _posed(said, lexicon)
    text = Text(said)
    strength, mentions, frame = _measured(text, lexicon)
    genre = genre_of(said, mentions, lexicon)
    frame = _usual_shape(frame, said) if genre == "brand_asset" else frame
    scene = read_scene(text, lexicon)
    is_branded = genre == "brand_asset" and not scene.style and _says(said, load("words")["brand"]["marks"]["any"])
    read = _pictured(genre, scene, mentions, strength, frame) | {"loras": _wishes(mentions, is_branded)}
    return GENRES[genre].model_validate(read)


def _posed(said: str, lexicon: Lexicon) -> str:
    """'Make Inky read a book' → 'Inky reading a book'."""
    return compiled(rf"^(?:make|let|have|get)\s+({lexicon.subjects})\s+(?:to\s+)?([a-z]+)\b").sub(
        lambda m: f"{m[1]} {participle(m[2].lower()) if is_deed(m[2]) else m[2]}", opened(said)
    )


def transfer(said: str, lexicon: Lexicon) -> StyleTransfer:
    text = Text(said)
    strength, mentions, frame = _measured(text, lexicon)
    shown = text.take(
        r"\b(?:photo|picture|image|pic|drawing|sketch|photograph|portrait|selfie|"
        r"shot)s?\s+of\s+((?:an?|the|my|our|me|some)\b\s*(?:[\w-]+\s?){0,3}?)(?=$|[,.;]|\s*\b(?:into|"
        r"in|as|to|like|with|and|using|on|at)\b)"
    )
    subject = compiled(r"^(?:my|our|the)\s+").sub("a ", tidy(shown[1])) if shown else ""
    scene = Scene(subject=subject, place="", style=take_style(text, lexicon), avoid="")
    return StyleTransfer.model_validate(_pictured("style_transfer", scene, mentions, strength, frame))


def _measured(text: Text, lexicon: Lexicon) -> tuple[float | None, Mentions, Frame]:
    """Strength and LoRAs first, as they hold numbers that are no sizes."""
    tags_and_names = read_mentions(text, lexicon)
    return take_strength(text), tags_and_names, take_frame(text, lexicon.subjects)


def _pictured(kind: str, scene: Scene, mentions: Mentions, strength: float | None, frame: Frame) -> dict[str, Any]:
    return {
        "kind": kind,
        "scene": scene,
        "loras": _wishes(mentions),
        "without": mentions.without,
        "strength": strength,
        "frame": frame,
    }


def _wishes(mentions: Mentions, is_branded: bool = False) -> tuple[LoraWish, ...]:
    is_ours = (mentions.brand or is_branded) and not mentions.of_kind("style")
    ours = (LoraWish(name=BRAND, weight=None),) if is_ours else ()
    return (*mentions.wished, *ours)


def _usual_shape(frame: Frame, said: str) -> Frame:
    if frame.shape or frame.ratio or frame.width:
        return frame
    shapes: dict[str, str] = load("words")["brand"]["assets"]
    match = compiled(any_of(with_plurals(shapes))).search(said)
    if not match:
        return frame
    noun = match[0].lower()
    return frame.model_copy(update={"shape": next(shapes[name] for name in shapes if noun in with_plurals((name,)))})


def change(said: str, lexicon: Lexicon) -> Change:
    text = Text(opened(said))
    nudges = take_nudges(text, lexicon)
    more = more_count(text.rest)
    mentions = read_mentions(text, lexicon)
    strength = take_strength(text)
    seedless = text.take(r"\b(?:again|once more)\b") is not None
    kept = text.rest
    frame = take_frame(text, lexicon.subjects)
    if more and frame.count is None:
        frame = frame.model_copy(update={"count": more})
    reseed_by_count = frame.count is not None and compiled(r"\bmore\b").search(kept) is not None
    found = read_edits(text, lexicon)
    if found.shape and frame.shape is None:
        frame = frame.model_copy(update={"shape": found.shape})
    nothing_else = not any(
        (
            found.swaps,
            found.add,
            found.remove,
            found.colour,
            found.place,
            found.style,
            found.which,
            found.back,
            nudges,
            mentions.wished,
            mentions.without,
            frame.is_reshaped,
            frame.seed is not None,
        )
    )
    reseed = (found.reseed or reseed_by_count or ((seedless or found.redo) and nothing_else)) and frame.seed is None
    return Change(
        kind="change",
        swaps=tuple(found.swaps),
        add=tuple(found.add),
        remove=tuple(found.remove),
        colour=found.colour,
        place=found.place,
        style=found.style,
        loras=_wishes(mentions),
        without=mentions.without,
        nudges=tuple(nudges),
        strength=strength,
        reseed=reseed,
        which=found.which,
        back=found.back,
        frame=frame,
        unread=found.unread,
    )
