"""What is left of a sentence as a scene: subject, place, style, and what to avoid; chat words stripped."""

import re

from bot.intent import Scene
from bot.manners import GLUE, glued, loosened
from bot.prompts import load, words
from bot.rules.lexicon import Lexicon
from bot.rules.text import DETERMINER, NUMBER, Text, any_of, compiled, strip_start, tidy, with_plurals

GROUND = r"(?:background|backdrop|back ground|bg|back drop)"
ON = (
    r"(?:on top of|on|against|over|in front of|before|with|at|in|inside|into|onto|under|beneath|"
    r"near|by|amid|amidst|through|across|to|from)"
)
PLAIN = (
    r"(?:plain|solid|simple|clean|flat|uniform|bright|pastel|light|dark|pale|soft|striped|stripy|"
    r"dotted|gradient|wooden|white|blurred|empty|neutral|round|marble|stone|sunny|starry|snowy|"
    r"sandy|deep|busy|quiet|green|big|little|small)"
)
END = r"(?=$|[,.;:!?]|\s+(?:and|but|with|please|instead|for|in|as|at|again|too|now|then|by|on)\b)"


def take_style(text: Text, lexicon: Lexicon) -> str:
    """A plain style; one that is no style of the base has to be said as a style ('in … style', 'as a …')."""
    noun = any_of(words("style", "nouns"))
    lead = r"(?:,?\s*\b(?:and|but|done|made|drawn|painted|rendered|all)\s+){0,4}"
    base = lexicon.styles_of_base
    forms = (
        rf"{lead}\b(?:in|with|using|as|like|to|into)\s+(?:a|an|the)?\s*({lexicon.styles})(?:[-\s]+{noun})*(?!\s+of\b)",
        rf"{lead}\b(?:in|with|after)\s+the\s+(?:style|manner|look|vein)\s+of\s+(?:an?|"
        r"the)?\s*([\w-]+(?:\s+(?!(?:on|in|at|with|and|of|for|but|please|an?|the)\b)[\w-]+){0,3})",
        rf"{lead}(?:\blook(?:s|ing)?\s+)?(?:\b(?:like|as if)\s+(?:it|he|she|they|its)?(?:'s|'re|\s+is|\s+was|"
        rf"\s+were|\s+are)?\s*)?\b(?:made|built|sculpted|moulded|molded|cut)\s+(?:out\s+)?(?:of|from|in)\s+"
        rf"({lexicon.styles})",
        rf"\b({lexicon.styles})[-\s]+{noun}(?:\s+of\b)?",
        rf"{lead}\bin\s+(?:a|an|the)?\s*((?!(?:the|this|that|same|different|another|new|other|our|"
        r"my)\b)[\w-]+)[-\s]+style\b",
        rf"(?:\b(?:an?|the|some)\s+)?(?:{any_of(words('chat', 'praise'))}\s+){{0,4}}({base})s?\s+of\b",
        r",\s*(?:an?\s+)?((?!(?:the|this|that|same|different|another|new|other|our|my|in|of|with)\b)[\w-]+(?:\s[\w-]+)?)"
        r"[-\s]+style$",
        rf"{lead}({base})(?![\w-])",
    )
    for form in forms:
        if match := text.take(form):
            return lexicon.canonical(match[1])
    return ""


def take_place(text: Text, lexicon: Lexicon) -> str:
    """'teal background', 'on a podium', 'at the beach', and both of two; '' if none is said that the base knows."""
    if patterned := _take_pattern(text, lexicon):
        return patterned
    first, second = _take_base_place(text, lexicon), _take_base_place(text, lexicon)
    together = f"{first}{' ' if re.match(ON, second) else ', '}{second}" if first and second else first
    found = [place for place in (together, _take_background(text, lexicon)) if place]
    if not found or "background" not in found[0]:
        found += [place for place in (_take_colour_ground(text, lexicon),) if place]
    return ", ".join(found)


def _take_background(text: Text, lexicon: Lexicon) -> str:
    things = any_of(noun for noun in lexicon.nouns if noun.endswith("ed"))  # a bed is no manner of a background
    adjective = (
        rf"(?:{PLAIN}|(?:dark|light|bright|warm|cool|plain|simpl|soft|cosi|cozi)er|{lexicon.colours}|"
        rf"{lexicon.places}|(?!{things})[\w-]+ed)"
    )
    forms = (
        rf"(?:,?\s*\b(?:and|but)\s+)?(?:\b{ON}\s+)?(?:\b(?:an?|the|"
        rf"some)\s+)?((?:(?>{adjective}\b)[\s,]+){{1,5}}){GROUND}\b",
        rf"(?:,?\s*\b(?:and|but)\s+)?\b{ON}\s+(?:an?|the|some)\s+((?:[\w-]+\s+){{1,3}}?){GROUND}\b",
        rf"\b(?:an?\s+)?{GROUND}\s+(?:of|in|:)\s+((?:an?\s+|the\s+)?(?:(?>{adjective}\b)\s*+){{1,4}})",
    )
    for form in forms:
        if match := text.take(form):
            said = compiled(r"^(?:an?|the)\s+").sub("", tidy(match[1]))
            return f"{_canonical_words(said, lexicon)} background"
    return ""


def _take_pattern(text: Text, lexicon: Lexicon) -> str:
    """'On a red background with polka dots': a pattern of the ground, and no thing to draw."""
    colour = rf"(?P<colour>{lexicon.colours})"
    pattern = rf"(?:with|of|in)\s+(?:(?P<other>{lexicon.colours})\s+)?(?P<what>(?:polka[\s-])?dots|stripes)"
    ground = rf"(?:{colour}\s+)?{GROUND}"
    form = (
        rf"(?:,?\s*\b(?:and|but)\s+)?(?:\b{ON}\s+)?(?:\b(?:an?|the)\s+)?(?:{ground}\s+{pattern}|"
        rf"(?<=\bon\s)(?:{colour.replace('?P<colour>', '?P<bare>')})\s+"
        rf"{pattern.replace('other', 'other2').replace('what', 'what2')}){END}"
    )
    if not (match := text.take(form)):
        return ""
    colour, other, what = (
        match[a] or match[b] or "" for a, b in (("colour", "bare"), ("other", "other2"), ("what", "what2"))
    )
    colour = lexicon.canonical(colour) if colour else ""
    if other:
        return f"{colour} background with {lexicon.canonical(other)} {what.lower()}".strip()
    return " ".join(
        part for part in ("striped" if what.lower() == "stripes" else "dotted", colour, "background") if part
    )


def _take_base_place(text: Text, lexicon: Lexicon) -> str:
    idle = "|".join(word for word in ("standing", "sitting", "lying") if not lexicon.seen(word))  # else a pose
    lead = rf"(?:,?\s*\b(?:and|but|placed|set|displayed|shown|presented{idle and '|'}{idle})\s+){{0,4}}"
    inner = rf"(?:(?:an?|the|some|our|my)\s+)?(?:(?:{PLAIN}|{lexicon.colours}|city)\s+){{0,4}}"
    form = (
        rf"{lead}(?:\b({ON}\s+{inner})|(?<=\s)(?=underwater|outdoors|indoors)|(?:^|,)\s*(?:an?\s+|"
        rf"the\s+)?)({lexicon.places})(?!\s+{GROUND})(\s+(?:street|sand|scene|setting|surface|floor|"
        rf"sky|shoot))?{END}"
    )
    if not (match := text.take(form)):
        return ""
    lead_words, name, more = match[1] or "", match[2], match[3] or ""
    if lexicon.seen(name):
        return tidy(f"{lead_words}{name}{more}").lower()
    colour = compiled(lexicon.colours).search(lead_words)
    return " ".join([*([colour[0].lower()] if colour else []), lexicon.canonical(name)])


def _take_colour_ground(text: Text, lexicon: Lexicon) -> str:
    """'on teal' is a teal background."""
    form = (
        r"(?:,?\s*\b(?:and|but)\s+)?(?:\b(?:on|against|over|upon|onto)\s+|(?<=[\w-]),\s*(?:in |all )?)(?:an?\s+|"
        rf"the\s+)?(?:{PLAIN}\s+)?({lexicon.colours})(?:\s+(colou?r|wall|ground))?{END}"
    )
    if not (match := text.take(form)):
        return ""
    ground = "wall" if match[2] == "wall" and lexicon.seen("wall") else "background"
    return f"{lexicon.canonical(match[1])} {ground}"


def _canonical_words(said: str, lexicon: Lexicon) -> str:
    return compiled(lexicon.colours).sub(lambda m: lexicon.canonical(m[0]), said.lower())


def take_avoided(text: Text) -> str:
    """'without a hat', 'no text'."""
    found: list[str] = []
    while match := text.take(
        r"(?:,?\s*\b(?:and|but)\s+)?\b(?:without|with no|no|avoid|don't include|do not include|"
        rf"excluding)\s+(?:any\s+|an?\s+|the\s+)?([\w-]+(?:\s+(?!{any_of(words('chat', 'polite'))})[\w-]+)?)"
        rf"(?:\s+{any_of(words('chat', 'polite'))})?{END}"
    ):
        found.append(match[1].lower())
    return ", ".join(found)


def openers(lexicon: Lexicon) -> tuple[str, ...]:
    """What may stand before the thing to draw: greetings, politeness, 'draw me', 'a nice picture of'."""
    brand, product = load("words")["brand"]["assets"], load("words")["product"]["marks"]
    praise = rf"(?:{any_of(words('chat', 'praise'))}[\s,]+(?:and\s+)?)*"
    holder = any_of(
        with_plurals([*words("chat", "picture_nouns"), *brand, *product, "character design", "character sheet"])
    )
    roles = any_of(words("character", "marks"))
    names = any_of([card.name for card in lexicon.cards] + [card.title for card in lexicon.cards])
    channel = rf"(?:{any_of(words_of_brand('channels'))}\s+)?"
    of_words = any_of(words("chat", "of_words"))
    verbs = any_of(words("chat", "draw_verbs"))
    return (
        any_of(words("chat", "greetings")),
        any_of(words("chat", "polite")),
        any_of(words("chat", "openers")) + r"(?:\s+to)?",
        rf"{verbs}(?!\s+(?:frame|to)\b)(?:\s+(?:me|us|up|out))*",
        rf"(?:(?:{DETERMINER}|{NUMBER})\s+)?{praise}{channel}{holder}(?:\s+{holder})?(?!\s+frame)(?:\s*"
        rf"[,:;-]?\s*{of_words}|\s*[:;-]|(?=\s+(?:in|on|for|at)\b)|$|(?=,))",
        rf"{DETERMINER}\s+{praise}{channel}{holder}$",
        rf"(?:{DETERMINER}\s+)?{praise}{roles}\s*[:,]\s*(?={DETERMINER}\b)",
        rf"(?:let|have|make|put|get)\s+(?={names})",
        rf"(?:of|with|featuring|showing)\s+(?={DETERMINER}\b|{NUMBER}\b|\w+$)",
    )


def words_of_brand(name: str) -> tuple[str, ...]:
    return tuple(load("words")["brand"]["marks"][name])


def bare(said: str, lexicon: Lexicon) -> str:
    """`said` without chat words around it."""
    said = strip_start(_from_the_order(strip_start(tidy(said), openers(lexicon)), lexicon), openers(lexicon))
    tail = (
        rf"[\s,]*(?<!\w)(?:{any_of(words('chat', 'polite'))}|for (?:me|us)|will do|too|as well|or something|"
        r"or so|or similar|again|if you can|on it|looks? like|today|now|meanwhile|in the meantime|somewhere)$"
    )
    before = None
    while before != said:
        before = said
        said = tidy(compiled(tail).sub("", said.rstrip("?!. ")))
    return said


def _from_the_order(said: str, lexicon: Lexicon) -> str:
    """'The newsletter needs a picture of a lemon' → 'a picture of a lemon': what comes before names nothing to draw."""
    brand, product = load("words")["brand"]["assets"], load("words")["product"]["marks"]
    holder = any_of(with_plurals([*words("chat", "picture_nouns"), *brand, *product]))
    of_words = any_of([*words("chat", "of_words"), "for"])
    wishes = r"see|needs?|wants?|have|like|asked for|thinking of|thinking about|imagine|love"
    verbs = rf"(?:{any_of(words('chat', 'orders'))}|{wishes})"
    names = any_of([card.name for card in lexicon.cards] + [card.title for card in lexicon.cards])
    forms = (
        rf"^([^,]*?)\b{holder}\s*[,-]\s+(?=\S)",
        rf"^(.*?)\b{holder}(?:\s*:|[^:,]*:|\s+{of_words})\s+(?=\S)",
        rf"^(.*?)\b{verbs}\s+(?:(?:me|us|to see|to have)\s+){{0,4}}(?={DETERMINER}\b|{NUMBER}\b|{names})",
    )
    for form in forms:
        match = compiled(form).match(said)
        tells = rf"\b(?:with|of|holding|and an?|wearing)\b|{names}"
        if match and not compiled(tells).search(match[1]) and GLUE not in match[0]:
            said = said[match.end() :]
    return said


def take_purpose(text: Text) -> str:
    """'for our Instagram': why it is wanted, which is nothing to draw, unless it is the only thing that is said."""
    match = text.take(
        r",?\s*\b(?:for|to (?:promote|advertise|announce|celebrate|sell|use (?:on|in|for))|"
        r"announcing|promoting|advertising)\s+((?!me\b|us\b)[^,;:.!?]+?)(?=$|[,;:.!?]|\s+(?:about|with|showing|"
        r"featuring|in|on|at|of|that|where)\s)"
    )
    return tidy(match[1]) if match else ""


def read_scene(text: Text, lexicon: Lexicon) -> Scene:
    """Takes style, place and purpose; the rest, without chat words, is the subject."""
    text.rest = glued(text.rest)
    style, avoid, place = take_style(text, lexicon), take_avoided(text), take_place(text, lexicon)
    purpose = take_purpose(text)
    text.take(r"\b(?:instead of|rather than|not)\s+.*$")
    subject = _owned(bare(text.rest, lexicon), lexicon)
    if not subject and purpose:
        subject = _drawable(purpose, lexicon)
    if not place:
        subject, place = split_place(subject, lexicon)
    return Scene(subject=loosened(subject), place=loosened(place), style=style, avoid=loosened(avoid))


def split_place(subject: str, lexicon: Lexicon) -> tuple[str, str]:
    """'a fox in a kitchen' → 'a fox', 'in a kitchen'; on or in a thing that the base draws, it is all subject."""
    match = compiled(r"^(.+?)\s+((?:in|at|inside|under|beneath|near|on)\s+(?:an?|the)\s+([\w -]+))$").match(subject)
    if (
        not match
        or any(lexicon.is_noun(word) for word in [match[3], *match[3].split()])
        or re.search(r"left|right|cent", match[3])
    ):
        return subject, ""
    return match[1], match[2]


def _drawable(purpose: str, lexicon: Lexicon) -> str:
    nouns = [word.lower() for word in re.findall(r"[\w-]+", purpose) if lexicon.is_noun(word)]
    return "" if not nouns else nouns[0] if nouns[0].endswith("s") else f"a {nouns[0]}"


def _owned(subject: str, lexicon: Lexicon) -> str:
    """'our new mug' is a mug; before a LoRA's name the owner goes, and the role too ('our mascot Inky')."""
    names = any_of(
        [
            said
            for card in lexicon.cards
            if card.kind not in ("style", "quality", "speed")
            for said in (card.name, card.title, *card.aliases)
        ]
    )
    roles = any_of(words("character", "marks"))
    subject = compiled(rf"\b({NUMBER})\s+of\s+(?:our|my|the|your)\s+(?=\w+s\b)").sub(r"\1 ", subject)
    subject = compiled(
        r"(?:\b(?:our|my|the|your|a)\s+)?(?:\b(?:famous|little|own|new|old|dear|beloved|brand|company|"
        rf"game|main)\s+){{0,4}}(?:{roles}(?:\s+called|\s+named|,)?\s+)?({names})"
    ).sub(r"\1", subject)
    subject = compiled(rf"({names}),?\s+(?:our|my|the)\s+{roles}").sub(r"\1", subject)
    return tidy(
        compiled(r"\b(?:our|my|your|their)\s+(?:(?:brand\s+)?new\s+|own\s+|latest\s+)?(?=(\w))").sub(
            lambda m: "an " if m[1].lower() in "aeiou" else "a ", subject
        )
    )
