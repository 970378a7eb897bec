"""What is to change in a picture that is there. Each reader takes its own words; what none took is `unread`."""

import re
from dataclasses import dataclass, field

from bot.intent import Nudge, Swap
from bot.manners import MANNERS, moods
from bot.prompts import words
from bot.rules.acts import PRONOUN
from bot.rules.lexicon import Lexicon, spoken
from bot.rules.mentions import WITHOUT
from bot.rules.scenes import GROUND, bare, take_place, take_style
from bot.rules.text import DETERMINER, NUMBER, Text, any_of, compiled, is_deed, number, participle, strip_start, tidy

UP = r"(?:stronger|heavier|bolder|more intense|more pronounced|higher|more)"
DOWN = (
    r"(?:not (?:so|as) much|weaker|lighter|softer|subtler|more subtle|less intense|less pronounced|lower|gentler|less)"
)
NO_QUALITY = (  # 'more premium' is no more of the style
    r"(?!(?<=more|less)\s+(?!(?:and|but|please|than|now|again|in|on|at|for|here|this|too|then|visible|obvious|noticeable|"
    r"prominent|evident|present)\b)\w)"
)
STEP = 0.2
ORDINALS = {
    "first": 1,
    "1st": 1,
    "second": 2,
    "2nd": 2,
    "third": 3,
    "3rd": 3,
    "fourth": 4,
    "4th": 4,
    "left": 1,
    "right": -1,
}
THING = r"([\w'-]+(?:\s+(?!and\b|but\b|from\b|with\b|in\b|on\b|at\b|please\b|instead\b|too\b)[\w'-]+){0,3})"
STOP = r"(?=$|[,.;!?]|\s+(?:and|but|please|instead|too|as well|from|then|again|this time)\b)"
PICTURE = r"(?:picture|image|photo|one|version|result|drawing|shot|scene|everything|rest)"
SUBJECT = rf"(?:{PRONOUN}|that|this|them|the {PICTURE})"

VAGUE = (
    rf"(?:\b(?:make|let|have|give|get|add)\s+)?(?:\b{SUBJECT}\s+)?(?:\b(?:look|to|be|a|an|bit|little|lot|much|way|even|"
    rf"some|more|less|extra|of)\s+){{0,6}}{any_of(words('chat', 'vague_changes'))}(?:\s+(?:more|a bit|a lot))?{STOP}"
)


@dataclass
class Edits:
    swaps: list[Swap] = field(default_factory=list[Swap])
    add: list[str] = field(default_factory=list[str])
    remove: list[str] = field(default_factory=list[str])
    nudges: list[Nudge] = field(default_factory=list[Nudge])
    colour: Swap | None = None
    place: str | None = None
    style: str | None = None
    which: int | None = None
    back: bool = False
    reseed: bool = False
    redo: bool = False
    shape: str | None = None
    unread: str = ""


def take_nudges(text: Text, lexicon: Lexicon) -> list[Nudge]:
    """'stronger style', 'less crisp', 'turn terracotta up'. Read before LoRAs are, as it names them for another end."""
    names = {said.lower(): card.name for card in lexicon.cards for said in spoken(card)}
    name, noun = (
        any_of(names),
        r"(?:the\s+|our\s+)?(?:style|look|lora|brand|branding|effect)(?:\s+(?:strength|weight|lora))?",
    )
    named = (
        rf"(?:the\s+|our\s+)?(?:(?P<name>{name})(?:[-\s]+{any_of(words('style', 'nouns'))})*|"
        rf"{noun})(?:\s+(?:strength|weight))?"
    )
    amount = r"(?:(?P<much>a (?:bit|little|touch)|slightly|much|a lot|way|somewhat|even|far)\s+)?"
    forms = (
        (
            r"(?:\b(?:make|with|use|a|an|and|but|,|have|"
            rf"apply)\s+){{0,4}}{amount}\b(?:of\s+)?(?P<up>{UP})\s+(?:of\s+)?{named}",
            1,
        ),
        (
            r"(?:\b(?:make|with|use|a|an|and|but|,|have|"
            rf"apply)\s+){{0,4}}{amount}\b(?P<down>{DOWN})\s+(?:of\s+)?{named}",
            -1,
        ),
        (
            rf"(?:\b(?:make|with|and|but|set|get|have)\s+){{0,4}}\b{named}\s+(?:should be |needs to be |to be |"
            rf"a )?{amount}(?P<up>{UP})\b{NO_QUALITY}",
            1,
        ),
        (
            rf"(?:\b(?:make|with|and|but|set|get|have)\s+){{0,4}}\b{named}\s+(?:should be |needs to be |to be |"
            rf"a )?{amount}(?P<down>{DOWN})\b{NO_QUALITY}",
            -1,
        ),
        (
            rf"\b(?:turn|dial|crank|push|bring|ramp)\s+(?:{named}\s+up|"
            rf"up\s+{named.replace('?P<name>', '?P<after>')}){{1}}",
            1,
        ),
        (
            rf"\b(?:turn|dial|tone|bring|take)\s+(?:{named}\s+down|"
            rf"down\s+{named.replace('?P<name>', '?P<after>')}){{1}}",
            -1,
        ),
        (rf"\b(?:increase|raise|strengthen|boost|intensify)\s+{named}", 1),
        (rf"\b(?:decrease|lower|reduce|weaken|soften|lessen)\s+{named}", -1),
        (rf"^(?:make it |a )?{amount}(?:stronger|more intense)(?=$|[,.!])", 1),
        (rf"^(?:make it |a )?{amount}(?:weaker|subtler|more subtle|softer)(?=$|[,.!])", -1),
    )
    found: list[Nudge] = []
    for form, sign in forms:
        if match := text.take(form):
            groups = match.groupdict()
            said = groups.get("name") or groups.get("after")
            much = groups.get("much") or ""
            by = (
                0.1
                if re.match(r"a (?:bit|little|touch)|slightly|somewhat", much)
                else 2 * STEP
                if re.match("much|a lot|way|far", much)
                else STEP
            )
            found.append(Nudge(name=names[said.lower()] if said else None, by=sign * by))
    return found


def read_edits(text: Text, lexicon: Lexicon) -> Edits:
    """Everything but LoRAs, nudges and numbers, which are read before."""
    edits = Edits()
    _take_unable(text, edits)
    _take_reference(text, edits)
    _take_manners(text, edits)
    _take_background(text, lexicon, edits)
    _take_swaps(text, lexicon, edits)
    _take_size(text, edits)
    _take_removed(text, lexicon, edits)
    _take_colour(text, lexicon, edits)
    _take_place(text, lexicon, edits)
    _take_style(text, lexicon, edits)
    _take_added(text, edits)
    _take_rest(text, lexicon, edits)
    return edits


def _take_unable(text: Text, edits: Edits) -> None:
    """What words cannot change; said back and never dropped. 'Keep the mug' asks for nothing."""
    if match := text.take(
        r"\b(?:rotate|crop|flip|mirror|zoom(?: in| out)?|sharpen|blur|brighten|darken|lighten|tilt|"
        r"straighten|outpaint|animate)\b[^,.;]*?(?=$|[,.;]|\s+(?:and|but)\b)"
    ):
        edits.unread = match[0].strip()
    if match := text.take(VAGUE):
        edits.unread = " ".join(part for part in (edits.unread, tidy(match[0])) if part)
    text.take(r"\bkeep\s+(?:everything|all|the|its|his|her|it|that|this)?\s*[^,.;]*?(?=$|[,.;]|\s+(?:and|but)\b)")
    text.take(r"\b(?:be|a bit|a little|slightly|much|a lot|somewhat)(?=\s+(?:wide|tall|on|in|at|under)|[?!.]*$)")
    text.take(
        r"^(?:i(?:'d| would) rather(?: have| see)?|"
        r"(?:can|could|would|should)(?=\s+(?:it|he|she|they|the|that|this|its|his|her|their)\b))\s*"
    )
    text.take(rf"^i (?:really )?(?:like|love) {SUBJECT}(?: one)?(?:\s*[,;.]\s*(?:but\b)?|\s+but\b)\s*(?=\w)")
    text.take(r"\bnot (?:on|in|at|under) [^,.;]*,")
    text.take(r"^i (?:don'?t|do not) (?:really )?(?:like|want|love|need) [^,.;]*[,.;]\s*")
    if text.take(rf"^(?:the |its )?{GROUND} is (?:a bit |way |much |far )?too \w+[,;.]?\s*(?=\w)"):
        text.take(r"\b(?:make|turn|paint|have) it\b", "make the background")
    text.take(r"^(?:it'?s |that'?s |a bit |way |much |far )*too \w+[,;.]?\s*(?=\w)(?:try\b)?")
    text.take(r"^(?:what if|how about|what about|maybe|perhaps|try)\b(?:\s+(?:we )?(?:try|tried|had|made))?")


def _take_reference(text: Text, edits: Edits) -> None:
    """Which picture is meant, and whether a new seed is."""
    kinds = r"(?:one|picture|image|version|option|variation|variant|photo|shot|drawing|result|take)"
    lead = r"(?:\b(?:use|take|with|from|like|pick|choose|keep|of|i (?:like|prefer|want))\s+)?"
    if match := text.take(
        rf"{lead}\b(?:the\s+)?(first|second|third|fourth|1st|2nd|3rd|4th|left|right)\s+{kinds}(?:\s+again)?"
    ):
        edits.which = ORDINALS[match[1].lower()]
    elif match := text.take(rf"{lead}\b(?:{kinds}|number|no\.?|nr\.?)\s*#?([1-4])\b"):
        edits.which = int(match[1])
    if text.take(
        r"\b(?:undo|revert)(?:\s+(?:that|it|this|the (?:last )?(?:change|edit)))?\b|"
        rf"\bgo back(?:\s+(?:to|one|a step|please))*(?:\s*the (?:previous|earlier|old) {kinds}|"
        rf"\s*the one before)?|\bback to the (?:previous|earlier|old|original) {kinds}"
    ):
        edits.back = True
    again = (
        rf"\b(?:another|{NUMBER}\s+more|one more|a few more|some more|more)(?:\s+(?:{kinds}s?|try|go|"
        r"attempt|time|round))?(?:\s+(?:like|of)\s+(?:this|that|these|those|it|them))?(?=$|[,.!?]|"
        r"\s+(?:with|please|but|in|on|at)\b)"
    )
    fresh = (
        r"\b(?:with\s+|use\s+|try\s+){0,4}(?:an?\s+|the\s+)?(?:different|new|fresh|another|other|random|"
        r"next)\s+(?:seed|one|version|variation|variant|take|try)\b|\bvariations?(?:\s+of (?:it|this|"
        r"that))?\b"
    )
    if text.take(again) or text.take(fresh):
        edits.reseed = True
    edits.redo = (
        text.take(
            r"\b(?:try again|reroll|re-roll|regenerate|rerun|retry|redo|re-?draw|do over|"
            r"repeat)(?:\s+(?:it|that|this|of (?:it|this|that)))?\b"
        )
        is not None
    )
    text.take(r"\b(?:with\s+)?(?:the\s+)?same seed\b")
    text.take(
        rf"\b(?:the\s+)?(?:exact\s+)?same(?:\s+(?:thing|{kinds}|prompt|scene|again))*\b(?:,?\s*(?:but|"
        r"only|just|except))?"
    )


def _take_manners(text: Text, edits: Edits) -> None:
    """'From above', 'with side light and copy space on the left', 'make it angry'."""
    lead = r"(?:,?\s*\b(?:and|but|now|with|in|as|some|a bit|more)\s+){0,4}"
    verbs = rf"(?:\b(?:make|show|draw|do|see|shoot|have)\s+(?:{SUBJECT}\s+)?)?"
    for match in text.take_all(rf"(?<![\w-]){verbs}{lead}(?<![\w-])({MANNERS})(?![\w-])"):
        edits.add.append(compiled(r"^an?\s+").sub("", match[1].lower()))
    who = rf"(?:{PRONOUN}|that|this|the [\w-]+|[A-Z][\w-]+)"
    looks = r"(?:(?:look|looks|looking|be|feel|seem|more|very|really|a bit|a little)\s+){0,4}"
    face = rf"^(?:(?:make|let|have|show|draw)\s+{who}\s+|{who}\s+(?:should|could|must|to)\s+)?{looks}"
    if match := text.take(rf"{face}({moods()}){STOP}"):
        edits.add.append(match[1].lower())


def _take_background(text: Text, lexicon: Lexicon, edits: Edits) -> None:
    """'change the background to…', 'background: …', 'no background'."""
    if text.take(rf"\b{WITHOUT}\s+(?:the\s+|any\s+|a\s+)?{GROUND}\b|\btransparent {GROUND}\b"):
        edits.place = "white background"
        return
    ground = (
        rf"(?:(?:the|its?|his|her|a|that|this)\s+)?(?:{GROUND}|setting|place|location|scenery)(?:'s)?(?:\s+colou?r)?"
    )
    verbs = (
        r"(?:(?:change|make|set|turn|switch|swap|replace|paint|colou?r|recolou?r|give it|put|use|have|"
        r"want|with|and|but|let)\s+){0,4}"
    )
    link = r"(?:(?:to be|should be|could be|be|to|into|with|for|as|is|by|in|of)\s+|[:=]\s*|becomes?\s+){0,4}"
    match = text.take(
        rf"\b{verbs}{ground}\s*{link}(?:(?:a (?:bit|little|touch|lot)|much|slightly|somewhat)\s+)?"
        rf"(?:an?\s+|the\s+|some\s+)?(?!instead\b|please\b|again\b|now\b|"
        rf"too\b|and\b|is\b)({ON_PLACE}[\w'-]+(?:\s+(?!and\b|but\b|"
        rf"please\b|instead\b|then\b)[\w'-]+){{0,4}})(?:\s+instead)?{STOP}"
    )
    if match:
        edits.place = as_place(match[1], lexicon)


ON_PLACE = r"(?:(?:on|in|at|under|inside)\s+(?:an?\s+|the\s+)?)?"


def as_place(said: str, lexicon: Lexicon) -> str:
    """The place that these words mean when said of a background."""
    said = tidy(compiled(rf"\s*\b{GROUND}$").sub("", said))
    if compiled(rf"^{lexicon.colours}$").match(said):
        return f"{lexicon.canonical(said)} background"
    place = take_place(Text(said), lexicon)
    if place:
        return place
    if compiled(
        rf"^(?:plain|solid|striped|dotted|gradient|(?:dark|light|bright|warm|cool|soft|plain|simpl)er|{lexicon.colours})(?:\s+[\w-]+)*$"
    ).match(said):
        return f"{said.lower()} background"
    return said if re.match(r"(?:on|in|at|under|inside)\b", said) else said.lower()


def _take_swaps(text: Text, lexicon: Lexicon, edits: Edits) -> None:
    forms = (
        r"\b(?:replace|swap|switch|exchange|change|turn|make|convert|transform)(?:\s+out)?\s+(?:the |"
        rf"an? |its |his |her |our )?{THING}\s+(?:with|by|for|to|into|in to|as)\s+(?:be\s+)?((?:an? |"
        rf"the |our |some )?{THING}){STOP}",
        r"(?:\b(?:with|use|have|draw|put|make it|show|want|,)\s+){0,4}((?:an? |the |our |"
        rf"some )?{THING})\s+(?:instead of|rather than|in place of|not)\s+(?:the |an? |his |her |"
        rf"its )?{THING}{STOP}",
    )
    while match := text.take(forms[0]):
        _swap(match[1], match[2], lexicon, edits)
    while match := text.take(forms[1]):
        _swap(match[3], match[1], lexicon, edits)


def _swap(old: str, new: str, lexicon: Lexicon, edits: Edits) -> None:
    """Sorted by what the words are: a colour, a place, a style, or a thing."""
    old = compiled(rf"^{DETERMINER}\s+").sub("", tidy(old))
    new = tidy(new)
    naked = compiled(rf"^{DETERMINER}\s+").sub("", new)
    thing = compiled(r"^(?:the )?colou?r(?: of (?:the )?([\w -]+))?$").match(old)
    pointing = (
        compiled(rf"^(?:{SUBJECT}|{PICTURE}|subject|that|object|main thing|product|character)$").match(old) is not None
    )
    if compiled(rf"^{lexicon.colours}$").match(naked):
        is_colour = compiled(rf"^{lexicon.colours}$").match(old) is not None
        edits.colour = Swap(
            old="" if pointing or is_colour else (thing[1] or "") if thing else old, new=lexicon.canonical(naked)
        )
    elif compiled(r"^(?:style|look)$").match(old) or compiled(
        rf"^{lexicon.styles}(?:\s+(?:style|version|drawing|look))?$"
    ).match(naked):
        found = take_style(Text(f"in {new}" if " style" in new else f"in {new} style"), lexicon)
        edits.style = found or naked
    elif compiled(rf"^{lexicon.places}$").match(naked) and not lexicon.is_noun(naked):
        edits.place = as_place(naked, lexicon)
    else:
        edits.swaps.append(Swap(old="" if pointing else old, new=new))


def _take_size(text: Text, edits: Edits) -> None:
    """'bigger' is a larger picture; 'the mug bigger' is a large mug."""
    bigger, smaller = r"(?:bigger|larger|huge|enormous|big|large)", r"(?:smaller|tiny|tinier|small|little)"
    for pattern, adjective, shape in ((bigger, "large", "bigger"), (smaller, "small", "smaller")):
        amount = r"(?:(?:a bit|a little|much|a lot|slightly|even|way)\s+)?"
        if match := text.take(
            rf"\b(?:make|draw|and|but|with)?\s*(?:the|our|my|his|her)\s+(?!{PICTURE}\b|"
            rf"{GROUND}\b)([\w-]+(?:\s(?!should|is|could|to|be|a|much)[\w-]+)?)\s+(?:should be |could be |"
            rf"to be |be |is )?{amount}{pattern}\b"
        ):
            edits.swaps.append(Swap(old=match[1], new=f"{adjective} {match[1]}"))
        elif text.take(
            rf"\b(?:make|draw|and|but|should be|could be|render)?\s*\b(?:(?:{SUBJECT})\s+)?(?:(?:should|"
            rf"could|can|must)\s+)?(?:be\s+)?(?:an?\s+)?{amount}{pattern}(?:\s+(?:{PICTURE}|size|file|"
            r"format|resolution|please))?(?=$|[,.!?]|\s+(?:and|but|please)\b)"
        ):
            edits.shape = shape
    if text.take(
        rf"\b(?:upscale|enlarge|blow up|scale up)(?:\s+{SUBJECT})?\b|\b(?:in\s+)?(?:a\s+)?(?:higher|"
        r"better|more) resolution\b|\bincrease the (?:size|resolution)\b"
    ):
        edits.shape = "bigger"
    if text.take(
        rf"\b(?:shrink|scale down|downscale)(?:\s+{SUBJECT})?\b|\blower resolution\b|\breduce the (?:size|resolution)\b"
    ):
        edits.shape = "smaller"


def _take_removed(text: Text, lexicon: Lexicon, edits: Edits) -> None:
    verbs = (
        r"(?:remove|delete|erase|take away|take out|take off|get rid of|lose|drop|without|with no|"
        r"no more|minus|leave out|leave off|ditch|no|cut out|cut|hide|omit|skip)"
    )
    style = any_of(("style", "look", "filter", "effect"))
    if text.take(
        rf"\b{verbs}\s+(?:the |any |that )?{style}\b|\b(?:in |with )?(?:a |the )?(?:normal|plain|no|"
        rf"ordinary|default|original|regular) {style}\b"
    ):
        edits.style = ""
    while match := text.take(
        rf"(?:\band\s+|\bbut\s+)?\b{verbs}\s+(?:the |an? |any |its |his |her |that |those |all |of )*{THING}{STOP}"
    ):
        if compiled(rf"^{lexicon.styles}$").match(match[1]):
            edits.style = ""
        else:
            edits.remove.append(match[1].lower())


def _take_colour(text: Text, lexicon: Lexicon, edits: Edits) -> None:
    colour, verbs = rf"({lexicon.colours})", r"(?:make|turn|paint|colou?r|recolou?r|dye|tint|draw|render|do|have|keep)"
    nots = rf"(?!\s+(?:{GROUND}|style|and white))"
    object_ = r"(?:(?:the|his|her|its|our)\s+)([\w-]+(?:\s(?!in\b|to\b|should\b|be\b|is\b|a\b)[\w-]+)?)"
    forms = (
        r"\b(?:change|switch|set|make)?\s*(?:the |its |his |her )?colou?r(?:\s+of\s+(?:the\s+)?([\w "
        rf"-]+?))?\s+(?:to|into|should be|be|:|=|as)\s+(?:a\s+)?{colour}{nots}",
        rf"\b{verbs}\s+{object_}\s+(?:to |in |into |be |all |completely )*(?:a\s+)?{colour}{nots}{STOP}",
        rf"{object_}\s+(?:should be|could be|to be|be|is|can be|in)\s+(?:a\s+)?{colour}{nots}{STOP}",
    )
    for form in forms:
        if match := text.take(form):
            old = match[1] or ""
            pointed = compiled(rf"^(?:{PICTURE}|colou?r|subject|object)$").match(old.split(" ")[0] if old else "")
            edits.colour = Swap(old="" if pointed else old, new=lexicon.canonical(match[2]))
            return
    one = (
        rf"\b(?:{verbs}|give|show|want|get|have|see|try)?\s*(?:me\s+)?(?:{SUBJECT}\s+)?(?:should be |"
        r"could be |be |was |were |to |in |into |all |a bit more |more )*(?:an?\s+|"
        rf"the\s+)?{colour}\s+(?:one|version|variant|variation|colou?r)s?\b",
        rf"\b{verbs}\s+(?:{SUBJECT}|one)\s+(?:to |in |into |be |all |completely |a )*{colour}{nots}{STOP}",
        rf"^{verbs}\s+(?:in |all )*{colour}{nots}{STOP}",
        rf"\b(?:{SUBJECT}|one)\s+(?:should be|could be|be|was|were|is|to be|can be|in)\s+(?:a\s+)?{colour}{nots}{STOP}",
        r"(?:^|\b(?:but|only|just|in|now|and|try|how about|what about|,)\s+)(?:in\s+|"
        rf"all\s+|only\s+|just\s+){{0,4}}{colour}{nots}(?:\s+(?:instead|please|now|this time))*(?=$|"
        r"[,.!?]|\s+(?:and|but)\b)",
    )
    for form in one:
        if match := text.take(form):
            edits.colour = Swap(old="", new=lexicon.canonical(match[1]))
            return


def _take_place(text: Text, lexicon: Lexicon, edits: Edits) -> None:
    if match := text.take(
        r"\b(?:(?:move|put|place|shift|set|have|make)\s+(?:it|him|her|them|this|that|(?:the|"
        r"our)\s+[\w-]+|\w+)\s+)?(?:be\s+)?(?:more\s+)?(?:on|to|in|at|over to)\s+the\s+(left|right|"
        r"cent(?:er|re)|middle)(?:\s+(?:side|hand side|half))?\b"
    ):
        side = match[1].lower()
        edits.add.append(f"on the {side}" if side in ("left", "right") else "in the center")
    if match := text.take(
        rf"\bmake\s+(?:it|this|that|them)\s+(?:an?\s+|be\s+)?({lexicon.places})(?=$|[,.!?]|\s+(?:time|"
        r"and|but)\b)(?:\s+time)?"
    ):
        edits.place = lexicon.canonical(match[1])
    if match := text.take(
        r"\b(?:put|place|stick|set)\s+((?:an?|some|the|his|her|"
        rf"two)?\s*(?!{PRONOUN}\b)[\w'-]+(?:\s[\w'-]+)?)\s+(?:on|onto|over|next to|beside|in front of|"
        rf"behind|near)\s+(?:top of\s+)?{SUBJECT}(?:'s? \w+)?{STOP}"
    ):
        edits.add.append(re.sub(r"^the\b", "a", match[1]))
    place = take_place(text, lexicon)
    if place and edits.place is None:
        edits.place = place
    if edits.place is None and (
        match := text.take(
            rf"\b(?:move|put|place|set|bring|take|send|show|transport|relocate)\s+(?:{SUBJECT}|(?:the|"
            r"our)\s+[\w-]+|[A-Z][\w-]+)\s+((?:on|onto|in|into|at|to|under|inside|near|by)\s+(?:an?\s+|"
            rf"the\s+)?[\w-]+(?:\s[\w-]+)?){STOP}"
        )
    ):
        edits.place = re.sub(r"^(?:into|to)\b", "in", re.sub(r"^onto\b", "on", match[1].lower()))


def _take_style(text: Text, lexicon: Lexicon, edits: Edits) -> None:
    style = take_style(text, lexicon)
    if style and edits.style is None:
        edits.style = style


def _take_added(text: Text, edits: Edits) -> None:
    pose = (
        r"(?:wearing|holding|carrying|riding|eating|drinking|reading|playing|next to|beside|near|in front of|behind|"
        r"above|below)"
    )
    forms = (
        rf"\b(?:add|include|insert|put in|give (?:{PRONOUN}|that|this|(?:the|our)\s+[\w-]+|"
        r"[A-Z][\w-]+)|throw in|plus|attach)\s+(?:also\s+)?((?:an?|some|the|two|three|four|another|"
        rf"more)?\s*{THING}){STOP}",
        rf"\b(?:with|and|have)\s+((?:an?|some|two|three|another)\s+{THING}|[\w-]+s){STOP}",
        rf"\b({pose}\s+(?:an?|some|the|his|her|our)?\s*{THING}){STOP}",
    )
    for form in forms:
        while match := text.take(form):
            thing = re.sub(rf"\s+(?:next to|on|beside|near|behind|in front of)\s+{PRONOUN}$", "", match[1])
            edits.add.append(re.sub(r"^(?:another|the)\b", "a", thing))


def _take_rest(text: Text, lexicon: Lexicon, edits: Edits) -> None:
    """What is left is a new subject ('a fox instead'), a pose ('waving'), or something that we do not understand."""
    said = strip_start(
        text.rest,
        (
            r"(?:can|could|would|will|should) (?:you|we|it)\b",
            r"(?:could|can|would|should)$",
            r"how about",
            r"what about",
            r"what if",
            r"now",
            r"but",
            r"and",
            r"then",
            r"also",
            r"instead",
            r"again",
            r"ok(?:ay)?",
            r"this time",
        ),
    )
    said = tidy(
        compiled(r"\b(?:instead|again|this time|please|now|too|as well|once more|anymore|any more|look|be)$").sub(
            "", tidy(said)
        )
    )
    moving = compiled(
        rf"^(?:make|let|have|show)\s+(?:{PRONOUN}|that|the \w+|[A-Z]\w+)\s+(?:to\s+)?([a-z]+)((?:\s+[\w-]+)*)$"
    ).match(said)
    said = compiled(
        r"^(?:make|do|redo|give|draw|have|change|try|show|keep|let|use|want|see|get|put|take|"
        rf"turn)?\s*(?:me|us)?\s*(?:{SUBJECT})?\s*(?:should|could|to|be|is|can)?\s*$"
    ).sub("", said)
    if not said:
        return
    if moving and is_deed(moving[1]):
        edits.add.append(f"{participle(moving[1].lower())}{moving[2]}")
        return
    said = bare(compiled(rf"^(?:make|let|have|show|draw|with)\s+{SUBJECT}\s+").sub("", said), lexicon)
    said = compiled(rf"^(?:{SUBJECT})(?=$|\s+\w+ing\b)\s*").sub("", said)
    if compiled(r"^\w+ing\b").match(said):
        edits.add.append(said)
    elif _is_thing(said, lexicon):
        edits.swaps.append(Swap(old="", new=said))
    else:
        edits.unread = " ".join(part for part in (edits.unread, said) if part)


def _is_thing(said: str, lexicon: Lexicon) -> bool:
    names = {name.lower() for card in lexicon.cards for name in spoken(card)}
    last = said.split()[-1] if said else ""
    articled = compiled(r"^(?:an?|two|three|four|some|our)\s+[\w -]+$").match(said) is not None
    return bool(said) and (
        articled
        or lexicon.is_noun(last)
        or lexicon.is_noun(said)
        or said.lower() in names
        or any(n in said.lower().split() for n in names)
    )


def more_count(said: str) -> int | None:
    """'two more' is two pictures."""
    match = compiled(rf"\b({NUMBER})\s+more\b").search(said)
    return number(match[1]) if match else None
