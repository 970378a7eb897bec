"""The numbers in a sentence: how many, how large, which seed, how strong."""

from bot.intent import Frame
from bot.prompts import load, words
from bot.rules.text import NUMBER, Text, any_of, number, with_plurals

FORMAT = (
    r"(?:format|orientation|mode|version|picture|image|photo|crop|one|size|shape|layout|ratio|aspect(?: ratio)?|canvas)"
)
SHAPES = {
    "wide": r"wide-?screen|panoramic|panorama|horizontal(?:ly)?|wider|(?:16:9|3:2|4:3|2:1)(?: ratio)?|"
    rf"landscape\s+{FORMAT}|"
    r"(?:in|as|to|make it|make that)\s+(?:a\s+)?landscape(?=$|[,.!])|extra wide|"
    rf"wide(?:\s+{FORMAT})?(?!\s+(?:eye|awake|open))",
    "tall": r"vertical(?:ly)?|taller|upright|(?:9:16|2:3|3:4|1:2)(?: ratio)?|portrait\s+(?:format|"
    r"orientation|mode|size|layout|ratio)|"
    rf"(?:in|as|to|make it|make that)\s+(?:a\s+)?portrait(?=$|[,.!])|tall\s+{FORMAT}|(?:^|make it |"
    r"make that |(?<=, )|but )tall(?=$|[,.!])",
    "square": rf"(?:1:1)(?: ratio)?|square\s+{FORMAT}|(?:^|make it |make that |(?<=, )|but |in |as a |"
    r"a )square(?=$|[,.!]|\s+(?:for|please|and|of))",
}
STRENGTHS = {"half": 0.5, "full": 1.0}
FRACTION = r"(?:\d++(?:\.\d++)?+\s?%|-?(?:\d++(?:\.\d++)?+|\.\d++)|nan|inf)"  # "++": a long number takes no minutes


def fraction(said: str) -> float:
    """'0.6' or '60%' as a number."""
    return float(said.rstrip("% ")) / 100 if said.endswith("%") else float(said)


def take_seed(text: Text) -> int | None:
    match = text.take(
        r"(?:\b(?:and|with|using|use|at|on|from|for|the)\s+){0,4}\bseed(?:\s*(?:number|no\.?|of|is|to|"
        r"as|:|=|#))*\s*(\d+)\b"
    )
    return int(match[1]) if match else None


def take_size(text: Text) -> tuple[int | None, int | None]:
    lead = r"(?:\b(?:in|at|as|with|size|sized|resolution|of|a)\b\s*+(?::\s*+)?){0,4}"
    if match := text.take(
        rf"{lead}\b(\d+)\s?(?:x|×|by|\*)\s?(\d+)\b(?:\s?(?:px|pixels?))?(?:\s+(?:large|big|format|size))?"
    ):
        return int(match[1]), int(match[2])
    if match := text.take(rf"{lead}\b(\d+)\s?(?:px|pixels?)\b(?:\s+(?:square|wide and high|each way|in size))?"):
        return int(match[1]), int(match[1])
    if match := text.take(r"\bsize\s*(?:of|:|=)?\s*(\d+)\b"):
        return int(match[1]), int(match[1])
    return None, None


def take_shape(text: Text) -> str | None:
    for shape, pattern in SHAPES.items():
        if text.take(
            r"(?:\b(?:in|as)\s+)?(?:\b(?:a|an)\s+(?=\S+\s+(?:format|ratio|layout|orientation|"
            rf"crop)))?(?<!\w)(?:{pattern})(?![\w-])"
        ):
            return shape
    return None


def take_steps(text: Text) -> int | None:
    match = text.take(r"(?:\b(?:with|in|using|for|and)\s+)?\b(\d+)\s+steps\b") or text.take(
        r"\bsteps\s*[:=]?\s*(\d+)\b"
    )
    return int(match[1]) if match else None


def take_strength(text: Text) -> float | None:
    """How far an attached picture may change."""
    pattern = (
        rf"(?:\b(?:at|with|using|a|an)\s+){{0,4}}(?:strength\s*(?:of|at|to|:|=)?\s*({FRACTION})|"
        rf"({FRACTION})\s+strength)(?![\w.])"
    )
    if match := text.take(pattern):
        return fraction(match[1] or match[2])
    if text.take(r"\b(?:but )?(?:only )?(?:very )?(?:subtly|slightly|gently|a light touch)\b"):
        return 0.4
    return None


def take_count(text: Text, subjects: str) -> int | None:
    """How many pictures: 'two versions of', '4 of them', 'two of Inky', 'x3'.

    A noun that says what kind of picture it is stays, and so do `subjects`, a pattern for whom LoRAs draw.
    """
    things = any_of(
        [
            *with_plurals(words("chat", "picture_nouns")),
            "more",
            "others",
            "other",
            "ones",
            "times",
            "drafts",
            "ideas",
            "results",
            "copies",
            "attempts",
            "goes",
            "choices",
        ]
    )
    kept = any_of(with_plurals([*load("words")["brand"]["assets"], *words("product", "marks")]))
    between = (
        r"(?:(?:different|new|more|other|nice|separate|quick|alternative|random|square|wide|tall|"
        r"similar)\s+){0,4}"
    )
    if match := text.take(rf"\b({NUMBER})\s+of\s+(?:them|those|these|it|each)\b"):
        return number(match[1])
    if match := text.take(rf"\b({NUMBER})\s+of\s+(?={subjects})"):
        return number(match[1])
    if match := text.take(
        r"(?:\b(?:in|as|give me|make|do|show me|with|the)\s+)?(?:\ba (?:set|batch|series|"
        rf"grid) of\s+)?\b({NUMBER})\s+{between}{things}(?:\s+(?:of|with|showing|for|"
        r"(?<=takes )on))?(?!\w)"
    ):
        return number(match[1])
    if match := text.take(rf"\b({NUMBER})\s+(?={between}{kept})"):
        return number(match[1])
    if match := text.take(rf"\b({NUMBER})\s+(?={any_of(with_plurals(words('style', 'plain')))}\s+of\b)"):
        return number(match[1])
    if match := text.take(r"(?<!\w)(?:x|×|n\s?=\s?|-{1,2}n\s)\s?(\d+)\b|\b(\d+)\s?(?:x|×)(?!\w)"):
        return int(match[1] or match[2])
    if match := text.take(rf"\ba (?:set|batch|series|grid) of\s+({NUMBER})\b(?=$|[,.!])"):
        return number(match[1])
    return None


def take_frame(text: Text, subjects: str) -> Frame:
    seed, (width, height) = take_seed(text), take_size(text)
    steps, count, shape = take_steps(text), take_count(text, subjects), take_shape(text)
    return Frame.model_validate(
        {"count": count, "width": width, "height": height, "shape": shape, "seed": seed, "steps": steps}
    )
