"""What a question is about."""

from bot.intent import Question, Topic
from bot.rules.acts import A_FILE, opened
from bot.rules.lexicon import Lexicon, spoken
from bot.rules.text import any_of, compiled, tidy

PRAISE = r"(?:perfect|great|lovely|awesome|wonderful|amazing|brilliant|excellent|fantastic|nice|cool|well done|love)"
THANKS = rf"(?:thanks?|thank (?:you|u)|thx|cheers|{PRAISE})"
BESIDE_THANKS = (
    r"(?:many|a|lot|bunch|so|very|much|again|really|i|it|them|that'?s|it'?s|looks?|job|work|oh|wow|ok|okay|yes|you|for|"
    r"that|this|all|team|atelier|everyone|guys|indeed|and|now|in advance)"
)
TOPICS: tuple[tuple[Topic, str], ...] = (
    (
        "concept",
        r"\b(?:what(?:'s| is| are| does)|explain|define|meaning of)\s+(?:an?\s+|the\s+)?"
        r"(?:loras?|adapters?|triggers?|trigger words?)(?:\s+(?:mean|for|do|and why))*\W*$",
    ),
    (
        "file",
        r"\b(?:where|which (?:file|folder)|what (?:file|folder))\b(?!.*\bloras?\b)"
        r".*\b(?:saved?|stored?|kept|files?|folder|path|picture|image)\b|\bdownload\b|"
        rf"{A_FILE}",
    ),
    (
        "training",
        r"\b(?:train(?:ing)?|teach|learn|fine-?tun\w+|dreambooth|how many (?:pictures|images|photos)|"
        r"add (?:my|our|a) (?:own )?(?:style|lora|character|product|mascot)|own (?:lora|style|"
        r"character|product)|new lora|trigger word)\b",
    ),
    (
        "licence",
        r"\b(?:licen[cs]e[sd]?|commercial(?:ly)?|copyright|rights|sell|print|legal(?:ly)?|allowed|"
        r"cost|costs|price|pay|free|royalt\w+|attribution|credit|own the|owns|publish)\b",
    ),
    (
        "taste",
        r"^which(?: one| of (?:them|these|those|the \w+)| (?:picture|version))?\s+(?:is|do you|would you|looks?)\b.*"
        r"\b(?:nicer|nicest|better|best|prettier|prettiest|like|prefer|choose|pick|favou?rite)\b",
    ),
    ("reasons", r"\bwhy (?:these|those|that|this|the|did|do|is|are|was|were)\b|^why\W*$|\breasons?\b"),
    (
        "last",
        r"\b(?:did you|you (?:used?|chose|picked|did)|was (?:it|that|this|used)|were (?:used|they)|"
        r"seeds?|prompts?|the weights?|recipe|settings? (?:of|for|did|were|was)|last (?:one|picture|image|time)|"
        r"that picture|this picture|the picture|made (?:it|that|this)|that look|why)\b",
    ),
)
LISTS = (
    r"\b(?:loras?|adapters?|styles?|looks?|characters?|mascots?|products?|brands?|catalog(?:ue)?|"
    r"models?|installed|available)\b"
)
DRAWABLE = (
    r"\b(?:draw|know|knows|vocabulary|nouns?|objects?|animals?|subjects?|things?|backgrounds?|"
    r"colou?rs?|scenes?|capable|able|can (?:you|it|pocket|i) (?:do|make|draw|paint|create|ask|"
    r"render|handle)|understand|paint|render|show)\b"
)
HELP = (
    r"^\W*$|\b(?:help|how (?:do|does|can|should) (?:i|you|we|this|it)(?: work| use| start|"
    r" begin)?|what (?:is|are) (?:you|this|atelier)|who are you|what can (?:you|i) do|commands|"
    r"how to start|get started|what to do|lost|confused|stuck)\b"
)


def is_thanks(said: str) -> bool:
    """'Thanks a lot!', 'perfect': said of what is there, and asks for nothing."""
    word = rf"(?:{THANKS}|{BESIDE_THANKS})(?:\W+|$)"
    return compiled(rf"^(?:{word})+$").match(said) is not None and compiled(rf"\b{THANKS}\b").search(said) is not None


def read_question(said: str, lexicon: Lexicon) -> Question:
    names = {name.lower(): card.name for card in lexicon.cards for name in spoken(card)}
    match = compiled(any_of(names)).search(said) if names else None
    about = names[match[0].lower()] if match else ""
    for topic, pattern in TOPICS:
        if compiled(pattern).search(said):
            return Question(kind="question", topic=topic, about=about)
    if about:
        return Question(kind="question", topic="lora", about=about)
    if not opened(said).strip(" ?!."):
        greeted = bool(said.strip(" ?!."))
        return Question(kind="question", topic="greeting" if greeted else "help", about="")
    if compiled(r"\bwhat can (?:you|i|we) (?:do|ask)\b|\bwhat to do\b|\b(?:lost|stuck|confused)\b").search(said):
        return Question(kind="question", topic="help", about="")
    if compiled(LISTS).search(said) and not compiled(r"\b(?:draw|paint)\b").search(said):
        return Question(kind="question", topic="loras", about="")
    if compiled(DRAWABLE).search(said):
        return Question(kind="question", topic="drawable", about=_asked_thing(said))
    return Question(kind="question", topic="help", about="")


ABILITY = compiled(
    r"(?:\s+(?:properly|well|correctly|accurately|reliably|nicely|convincingly|at all))*"
    r"(?:,?\s+or\s+(?:not|is|are|isn't|can't|do|does|would|should)\b.*)?[\s?]*$"
)


def _asked_thing(said: str) -> str:
    match = compiled(
        r"^.*\b(?:draw|paint|make|render|do|know(?: what| about)?|handle)\s+(?:an?\s+|the\s+|"
        r"some\s+)?(?!(?:you|i|we|they|it|this|that|pocket)\b)([\w -]+?)(?: is| are|"
        r" looks like)?\s*\?*$"
    ).match(ABILITY.sub("", tidy(said)))
    return (
        match[1] if match and match[1].lower() not in ("things", "stuff", "anything", "best", "well", "with it") else ""
    )
