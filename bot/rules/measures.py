"""The numbers in a sentence: how many, how large, which seed, how strong."""

from typing import Literal

from bot.intent import Frame
from bot.prompts import load, words
from bot.rules.text import NUMBER, Text, any_of, number, with_plurals

FORMAT = (
    r"(?:format|orientation|mode|version|picture|image|photo|crop|one|size|shape|layout|ratio|aspect(?: ratio)?|canvas)"
)
IN_WORDS = r"(?:in|as|to|make it|make that)\s+(?:an?\s+)?"  # 'in landscape', at the end of what is said
CLOSED = r"(?=$|[,.!])"
WHOLE = (  # 'wide' of the picture; a wide bottle is another thing
    r"(?=$|[,.;:!?]|\s+(?:and|but|please|for|of|in|with|on|at|this|now|instead|again|shot|scene|view|banner|header|hero|"
    r"cover|poster|post|ad|slide|illustration|drawing|painting|render)\b)"
)
SHAPES = {  # the first one that is found counts
    "banner": rf"panoramic|panorama|(?:extra|ultra|super)[ -]?wide|(?:banner|leaderboard|letterbox)\s+{FORMAT}",
    "landscape": rf"landscape\s+{FORMAT}|{IN_WORDS}landscape{CLOSED}",
    "wide": rf"wide-?screen|horizontal(?:ly)?|wider|wide\s+{FORMAT}|wide{WHOLE}",
    "story": rf"(?:story|stories|reels?|tiktok|shorts?|phone|wallpaper)\s+{FORMAT}|{IN_WORDS}(?:story|reel){CLOSED}",
    "portrait": r"portrait\s+(?:format|orientation|mode|size|layout|ratio)|" rf"{IN_WORDS}portrait{CLOSED}",
    "tall": rf"vertical(?:ly)?|taller|upright|tall\s+{FORMAT}|(?:^|make it |make that |(?<=, )|but )tall{CLOSED}",
    "square": rf"square\s+{FORMAT}|(?:^|make it |make that |(?<=, )|but |in |as a |a )square"
    r"(?=$|[,.!]|\s+(?:for|please|and|of))",
}
RATIOS = r"1:1|1\.91:1|[45]:[45]|[34]:[34]|[23]:[23]|16:9|9:16|16:10|10:16|21:9|9:21|[1-8]:1|1:[1-4]|5:7|7:5"
NUMBERS = r"\d{1,3}(?:\.\d{1,2})?\s?:\s?\d{1,3}(?:\.\d{1,2})?"  # a ratio only where it is called one
GLASS = r"(?:transparent|see-through|alpha)"
NO_GROUND = r"(?:without|with no|no|minus)\s+(?:an?\s+|the\s+|any\s+)?(?:background|backdrop|bg)"
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
    lead = r"(?:\b(?:in|at|as|for|with|size|sized|resolution|of|a)\b\s*+(?::\s*+)?){0,4}"
    if match := text.take(
        rf"{lead}\b(\d+)\s?(?:x|×|by|\*)\s?(\d+)\b(?:\s?(?:px|pixels?))?(?:\s+(?:large|big|format|size))?"
    ):
        return int(match[1]), int(match[2])
    if match := text.take(rf"{lead}\b(\d+)\s?(?:px|pixels?)\b(?:\s+(?:square|wide and high|each way|in size))?"):
        return int(match[1]), int(match[1])
    if match := text.take(r"\bsize\s*(?:of|:|=)?\s*(\d+)\b"):
        return int(match[1]), int(match[1])
    return None, None


def take_ratio(text: Text) -> str | None:
    """'16:9', 'an aspect ratio of 7:3'."""
    named = rf"(?:\b(?:in|at|as|with|to)\s+)?(?:\b(?:an?|the)\s+)?(?:aspect\s+)?ratio\s*(?:of|is|:|=)?\s*({NUMBERS})\b"
    lead = r"(?:\b(?:in|at|as|with|to|make it)\s+)?(?:\b(?:an?|the)\s+)?"
    after = r"(?:\s*(?:aspect(?:\s+ratio)?|ratio|format|shape|crop))"
    for form in (named, rf"{lead}(?<![\w.:])({NUMBERS}){after}", rf"{lead}(?<![\w.:])({RATIOS})(?![\w:.]\w){after}?"):
        if match := text.take(form):
            return match[1].replace(" ", "")
    return None


def take_shape(text: Text) -> str | None:
    for shape, pattern in SHAPES.items():
        if text.take(
            r"(?:\b(?:in|as)\s+)?(?:\b(?:a|an)\s+(?=\S+\s+(?:format|ratio|layout|orientation|"
            rf"crop)))?(?<!\w)(?:{pattern})(?![\w-])"
        ):
            return shape
    return None


def take_asset_shape(text: Text) -> str | None:
    """'As a story', 'make it a banner', 'turn it into a poster': the shape that such a thing is in."""
    shapes: dict[str, str] = load("words")["brand"]["assets"]
    lead = r"(?:\b(?:make|turn|do)\s+(?:it|this|that|them)\s+(?:into\s+)?|\b(?:as|into)\s+)(?:an?\s+|our\s+)?"
    match = text.take(rf"{lead}({any_of(shapes)})(?:\s+(?:format|post))?(?=$|[,.!?]|\s+(?:please|instead|now)\b)")
    return shapes[match[1].lower()] if match else None


def take_file(text: Text) -> int | None:
    """How large a file: 4 for full size, 1 for a small one."""
    lead = r"(?:,?\s*\b(?:and|but|in|at|as|with|to)\s+){0,3}(?:\b(?:an?|the)\s+)?"
    end = r"(?=$|[,.;!?]|\s+(?:please|of|and|but|for|with)\b)"
    kind = r"(?:\s+(?:picture|image|file|png|version|one))?"
    small = (
        rf"{lead}(?:small|tiny|little|light(?:weight)?)\s+(?:file|png)(?:\s+size)?{end}",
        rf"{lead}small\s+size{kind}{end}",
        rf"{lead}(?:not\s+(?:upscaled|enlarged)|(?:without|no)\s+(?:upscaling|enlarging)){end}",
    )
    full = (
        rf"{lead}(?:full|original)[- ](?:size|resolution|res)d?{kind}{end}",
        rf"{lead}(?:big|large)\s+(?:file|png)(?:\s+size)?{end}",
        rf"{lead}(?:4\s?x|four\s+times)\s+(?:upscaled|enlarged)(?=$|[,.;!?]|\s)",
        rf"{lead}(?:(?:upscaled?|enlarged?)(?:\s+(?:it|that|this))?|make\s+(?:it|that|this))\s+(?:by\s+|to\s+)?"
        rf"(?:4\s?x|x\s?4|four\s+times)(?:\s+(?:larger|bigger|as\s+large|the\s+size))?{end}",
    )
    return 1 if any(text.take(form) for form in small) else 4 if any(text.take(form) for form in full) else None


def take_transparent(text: Text) -> bool | None:
    """'On a transparent background', 'PNG without background', 'cut it out': what is shown alone."""
    if text.take(rf"(?:\b(?:and|but|,)\s+)*\b(?:not|no longer|isn't|less)\s+{GLASS}|\bopaque\b"):
        return False
    lead = r"(?:,?\s*\b(?:and|but|with|on|in|as|make it|give it|put it on|against)\s+){0,4}(?:\b(?:an?|the)\s+)?"
    png = r"(?:\b(?:as\s+)?(?:an?\s+|the\s+)?png(?:\s+file)?,?\s+(?:with\s+|on\s+)?(?:an?\s+)?)?"
    cut = r"(?<!paper )(?<!paper-)\bcut[- ]?out"
    forms = (
        rf"{lead}{png}\b{GLASS}\s+(?:background|backdrop|bg|png|ground|image|picture|file)\b",
        rf"{lead}{png}\b{NO_GROUND}\b",
        rf"{lead}\b{GLASS}(?=$|[,.!])",
        r"(?:\b(?:and|but)\s+)?\b(?:remove|delete|erase|take away|take out|drop|get rid of|lose|cut out)\s+"
        r"(?:the\s+|its\s+|any\s+)?(?:background|backdrop|bg)\b",
        r"\b(?:the\s+)?background\s+(?:removed|cut away|cut out)\b",
        r"(?:\b(?:and|but)\s+)?\bcut\s+(?:it|him|her|them|this|that)\s+out\b(?!\s+of\b)",
        rf"(?:\b(?:as|make)\s+(?:it\s+)?)?(?:\b(?:an?|the)\s+)?{cut}(?:\s+(?:png|version|picture|image|file))?"
        r"(?:\s+of\b|(?=$|[,.!]|\s+(?:please|and)\b))",
    )
    return True if any(text.take(form) for form in forms) else None


def take_steps(text: Text) -> int | None:
    match = text.take(r"(?:\b(?:with|in|using|for|and)\s+)?\b(\d+)\s+steps\b") or text.take(
        r"\bsteps\s*[:=]?\s*(\d+)\b"
    )
    return int(match[1]) if match else None


KARRAS = r"(?:\s+(?:karras|exponential|sgm[ _]uniform|beta))?"
SAMPLER = (  # those that stand for nothing else; plain "euler" is a person, too
    rf"(?:dpm\+\+(?:[ _]?(?:2m|3m|2s|sde)(?:[ _]?sde)?(?:[ _]?a)?)?|dpmpp(?:[_ ]\w+)?|uni-?pc|ddim(?:[ -]trailing)?|"
    rf"euler[ _-]?(?:a|ancestral|trailing)(?!\w)|lcm){KARRAS}"
)


def take_sampler(text: Text) -> str | None:
    """'With DPM++ 2M', 'sampler: UniPC', 'the euler sampler': as it was named."""
    lead = r"(?:,?\s*\b(?:and|but)\s+)?(?:\b(?:with|using|use|by|via|in|on)\s+)?(?:\bthe\s+)?"
    other = rf"(?:{SAMPLER}|euler|heun|[\w+]+)"
    forms = (
        rf"{lead}(?<![\w-])({SAMPLER}|euler|heun)\s+sampler\b",
        rf"{lead}(?<![\w-])sampler\s*(?:[:=]|is\b|to\b)\s*({other})(?![\w+])",
        rf"{lead}(?<![\w-])sampler\s+({SAMPLER}|euler|heun)(?![\w+])",
        rf"(?:,?\s*\b(?:and|but)\s+)?\b(?:with|using|use|via)\s+(?:the\s+)?({SAMPLER})(?![\w+])",
    )
    return next((match[1] for form in forms if (match := text.take(form))), None)


def take_guidance(text: Text) -> float | None:
    """'Guidance 5', 'cfg scale of 7', 'cfg 3.5'."""
    match = text.take(
        r"(?:,?\s*\b(?:and|with|at|a|use|using)\s+){0,4}\b(?:guidance|cfg)(?:\s+scale)?\s*(?:of|is|to|[:=])?\s*"
        r"(\d++(?:\.\d++)?+)(?![\w.])"
    )
    return float(match[1]) if match else None


QUICK = r"(?:quick|fast|rapid|speedy|rough)"
AT_END = r"(?=\s*(?:$|[,.;!?]|\bplease\b|\bpls\b))"
FAST = (  # 'a fast car' and 'a quick brown fox' are things to draw
    r"(?:\b(?:in|at|with|use|on)\s+)?(?:--speed\s+fast|(?:(?:the|a)\s+)?fast\s+(?:mode|speed|setting)|"
    r"speed\s*[:=]?\s*fast)\b",
    r"(?:,?\s*\b(?:and|but)\s+)?\b(?:make|do)\s+(?:it|this|that)\s+(?:quick|fast|faster|quicker|quickly)" + AT_END,
    r"(?:,\s*)?\b(?:(?:and\s+)?be\s+quick|(?:as\s+)?(?:quick(?:ly)?|fast)\s+as\s+(?:you\s+can|possible)|real\s+quick|"
    r"quickly|in a hurry|asap|faster|quicker)\b",
    rf"(?:^|,\s*)(?:{QUICK})" + AT_END,
    r"(?<=\w)\s+fast(?=\s*(?:$|[.!?]|\bplease\b))",
)
BEST = (
    r"(?:,?\s*\b(?:and|but|now)\s+)?(?:\b(?:in|at|with|for|use)\s+)?(?:\b(?:the|its|your)\s+)?"
    r"(?:--speed\s+best|speed\s*[:=]?\s*best|"
    r"(?:best|highest|top|maximum|max|final|full)[ -]quality)\b(?:\s+(?:mode|setting|version))?(?:\s+of(?=\s))?",
    r"(?:,?\s*\b(?:and|but)\s+)?\btake your time\b",
    r"(?:,?\s*\b(?:and|but)\s+)?\bas (?:good|well) as you can\b",
)


def take_speed(text: Text) -> Literal["fast", "best"] | None:
    """'A quick draft of', 'fast, please', 'in best quality'. Of 'a quick sketch' the sketch stays."""
    if any(text.take(form) for form in BEST):
        return "best"
    nouns = any_of(with_plurals(words("chat", "picture_nouns")))
    drafts = r"(?:drafts?|previews?|try|go|look|mock-?ups?|tests?|thumbnails?|ones?)"
    some = r"(?:(?:just|only)\s+)?"
    if text.take(rf"\b{some}{QUICK}\s+(?:and\s+(?:dirty|rough)\s+)?{drafts}\b(?!\s+\w+(?:er|ing)\b)", " picture "):
        return "fast"
    called = rf"(?:\b(?:as|just|only)\s+)+an?\s+(?:{QUICK}\s+)?draft\b"
    if text.take(rf"{called}|\bdraft(?=\s+(?:of|picture|version|image)\b)"):
        text.take(r"\ban?\s+(?=of\b)", " a picture ")
        return "fast"
    if text.take(rf"\b{QUICK}\s+(?:(?:little|simple|rough)\s+)?(?={nouns})"):
        return "fast"
    return "fast" if any(text.take(form) for form in FAST) else None


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
    kept = any_of(with_plurals([*load("words")["brand"]["assets"], *words("product", "marks"), "close-up"]))
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
    sampler, guidance, speed = take_sampler(text), take_guidance(text), take_speed(text)
    seed, (width, height) = take_seed(text), take_size(text)
    transparent, upscale, ratio = take_transparent(text), take_file(text), take_ratio(text)
    steps, count, shape = take_steps(text), take_count(text, subjects), take_shape(text) or take_asset_shape(text)
    return Frame.model_validate(
        {"count": count, "width": width, "height": height, "shape": shape, "seed": seed, "steps": steps, "ratio": ratio}
        | {"upscale": upscale, "transparent": transparent, "speed": speed, "guidance": guidance, "sampler": sampler}
    )
