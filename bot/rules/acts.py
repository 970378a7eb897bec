"""What kind of thing is said: a question, an order to learn, a change of what is there, or a new picture."""

import re

from bot.prompts import load, words
from bot.rules.text import DETERMINER, NUMBER, any_of, compiled, strip_start, with_plurals

PRONOUN = r"(?:it|its|him|her|his|them|he|she|they|himself|herself|itself)"
ASKED_THING = (
    r"(?:loras?|adapters?|styles?|looks?|characters?|mascots?|products?|brands?|options|list|"
    r"licen[cs]es?|recipe|settings|seed|prompt|models?|"
    r"vocabulary|nouns|words|everything you (?:can|have|know)|what|which|how|why|help|commands|"
    r"catalog|catalogue|capabilities|animals|backgrounds|colou?rs|objects|things)"
)
RELATIVE = (
    r"(?:shows?|has|have|is|are|was|features?|looks?|says?|goes|fits|would|could|can|we|i|you|"
    r"will|contains?|feels?|makes?|works?|pops?|matches)"
)
A_FILE = (
    r"^(?:give|send|get)\s+(?:me |us )?(?:the |that |a )?(?:png|jpe?g|(?:picture |image )?file|download)(?: file)?"
    r"(?:[\s,]+(?:please|pls|plz))?\W*$"
)


def opened(said: str) -> str:
    """The sentence without greeting and politeness before it."""
    return strip_start(
        said,
        (
            any_of(words("chat", "greetings")),
            r"please",
            r"kindly",
            r"and",
            r"but",
            r"also",
            r"by the way",
            r"btw",
            r"quick question",
            r"question",
            r"one (?:more )?question",
            r"actually",
            r"just",
            r"(?:picture|imagine|draw|do|consider) (?:this|it)\s*:",
            r"(?:here's|here is|(?:i|we)(?: have|'ve got| got)) (?:the|an?|my) (?:idea|brief|request|wish)\s*:",
            r"(?:idea|brief|request|task)\s*:",
        ),
    )


def without_courtesy(said: str) -> str:
    """The order without what comes after it and asks for nothing: ', can you do that?', 'thanks', ', it's for…'."""
    deed = r"(?:do|manage|make|draw|handle|try)\s+(?:that|this|it|one)(?:\s+for\s+(?:me|us))?"
    asked = (
        rf"(?:and\s+)?(?:(?:can|could|would|will)\s+(?:you|u|we)\s+(?:please\s+)?{deed}|"
        r"(?:is|would)\s+(?:that|this|it)\s+(?:be\s+)?(?:possible|doable|ok|okay|fine|all right|alright|work)|"
        r"(?:(?:that|it|this)\s+)?(?:would|could|might)\s+be\s+(?:great|fun|nice|lovely|perfect|cool|awesome|super)|"
        r"if\s+(?:that|it|this)(?:'s|\s+is)\s+(?:ok|okay|possible|all right|alright|no trouble)|"
        r"(?:it|that|they)(?:'s|'re|\s+is|\s+are|s)\s+(?:all\s+)?(?:(?:meant|needed|due|made|intended|just|only)\s+)?"
        r"(?:for|because|to go|going to go)\s+[^,.;!?]+)"
    )
    much = r"(?:\s+(?:a lot|a bunch|so much|very much|in advance|again))?"
    thanks = rf"(?:many\s+)?(?:thanks|thank\s+(?:you|u)|thx|cheers){much}"
    tail = compiled(rf"(?<=[\w\"')])(?:\s*[,;.!?–—-]+\s*{asked}|[\s,;.!?]+(?:{thanks}|lol|haha\w*|hehe\w*))\W*$")
    said = compiled(r"^(?:it|this|that)(?:'s|\s+is)\s+(?:meant\s+)?for\s+[^,.;:!?]+[,;:]\s+(?=\w)").sub("", said)
    before = None
    while before != said:
        before, said = said, tail.sub("", said)
    return said


def is_request(said: str) -> bool:
    """'Can you draw…', 'could it be blue?', 'how about on teal?': asked like a question, meant as an order."""
    start = compiled(
        r"^(?:(?:can|could|would|will|might)\s+(?:you|we|u)\s+(?:please\s+|maybe\s+|perhaps\s+|"
        r"just\s+|also\s+|quickly\s+){0,4}(?!(?:tell|explain|list|describe|say|remind|use|sell|draw (?:on|"
        r"with)|know|do (?:hands|text|people)|handle|understand|recogni[sz]e|work|learn from|only|"
        r"even)\b)\w+"
        r"|(?:what|how) about\b|what if\b|why (?:not|don't (?:you|we))\b|(?:can|could|may|"
        r"might) i (?:please )?(?:have|get|see|ask for|request|order)\b"
        r"|(?:what|how) (?:would|will|does|do) (?:it|that|this|the|our|my|he|she|they|an?|\w+)\b.*\blook\b"
        r"|(?:can|could|would|should|may) (?!you\b|we\b|i\b|u\b)(?:[\w-]+\s+){1,3}(?:be|have|go|look|"
        r"wear|hold|get|become|"
        r"stand|sit|wave|ride|eat|drink|run|jump|dance|sleep|smile|fly|read|play|carry|"
        r"appear)\b(?!\s+(?:used|sold|printed))"
        r"|(?:is it possible|are you able|would it be possible|is there any chance|any chance|"
        r"any chance you could|do you think you (?:can|could))\b.*\b(?:it|that|this|the|an?|some|"
        r"one)\b"
        r"|(?:do you mind|would you mind)\b|do (?:it|that|this|an?|the|me|one|two|three|four|another|"
        r"some)\b|have (?:it|him|her|them|the)\b)"
    )
    return start.match(said) is not None and not _asks_ability(said)


def _asks_ability(said: str) -> bool:
    """'Can you draw zeppelins?', 'can you do portraits?' ask what is possible: a bare plural and nothing more."""
    how = r"(?:\s+(?:properly|well|correctly|accurately|reliably|nicely|convincingly|at all)\b)*"
    match = compiled(
        r"^(?:can|could|will) (?:you|it|we|atelier|pocket) (?:even |also |only |actually )?(?:draw|do|"
        r"make|paint|handle|create|generate|render) (?!(?:an?|the|some|me|us|it|this|that|them|these|"
        r"our|my|another|one|two|three|four|\d+)\b)([\w'-]+(?:\s(?:or|and)?\s?[\w'-]+){0,2}?)"
        rf"({how})((?:,?\s+or\s+(?:not|is|are|isn't|can't|do|does|would|should)\b.*)?\s*\?*)$"
    ).match(said)
    several = r"(?:\w+[^s]s|people|hands|text|children|men|women|humans)$"
    return match is not None and any(match.groups()[1:]) and compiled(several).search(match[1]) is not None


def is_question(said: str) -> bool:
    said = opened(said)
    if not said.strip("? "):
        return True
    last = re.split(r"[.!?]\s+", said)[-1]
    if last != said and (
        starts_anew(last) or edits(last) or compiled(rf"^{any_of(words('chat', 'draw_verbs'))}\s+").match(opened(last))
    ):
        return False
    if compiled(A_FILE).match(said):
        return True
    if is_request(said):
        return False
    if compiled(
        r"^(?:show|give|tell|list|send|let)\b(?:\s+(?:me|us|know))*\s+(?:see\s+)?(?:all\s+|every\s+|"
        r"again\s+){0,4}(?:(?:the|your|our|my|available|a list of|of)\s+|"
        rf"all\s+){{0,4}}{ASKED_THING}\b(?!\s+(?:shot|photo|picture|image|render|version|photograph|visual|"
        r"design|sheet|waving|in |on |at |a |with |\w+ing\b|asset|banner|post))"
    ).match(said):
        return True
    if compiled(
        r"^(?:explain|describe|help|list|remind me|tell (?:me|us)|i wonder|(?:i'?m |i am )?wondering|"
        r"(?:i'?m |i am )?curious|i'?d like to know|i would like to know|i want to know|"
        r"i need to know|i don'?t (?:know|understand)|not sure (?:what|how|which|if)|any (?:other|"
        r"more|idea|tips|advice)|got any|have you got|who|whose|whom|instructions|info|information|"
        r"details|need help|i need help|i'm (?:lost|confused|stuck))\b"
    ).match(said):
        return True
    if compiled(
        r"^(?:what|what's|whats|which|why|how|how's|when|where|where's|who's|in what|for what|"
        r"with which|from which|under (?:what|which)|on (?:what|which)|at (?:what|which))\b"
    ).match(said):
        return True
    auxiliary = (
        r"(?:do (?:you|i|we|they|these|those|loras?|all|my|our|the)|does|did|is|are|was|were|am|isn't|aren't|"
        r"(?:may|can|could|should|shall|will|would|must|has|had)(?!\s+(?:love|like|prefer|be|need|want|rather|also)\b)|"
        r"have (?:you|i)|don't you|doesn't|differences?|meaning of|price of|cost of|recommended|default)"
    )
    return compiled(rf"^{auxiliary}\b").match(said) is not None


def is_training(said: str) -> bool:
    """The verb, not the vehicle: 'a train', 'the red train' and 'train station' are things to draw."""
    said = opened(said)
    before = (
        r"(?:^|\b(?:please|you|to|and|then|let'?s|now|just|can|could|would|we|i|i'll|we'll|will|must|"
        r"should|go|help|me|us|gonna|first|also|ok)\s+|[,;:.!]\s*)"
    )
    verb = (
        rf"{before}(?:re-?)?(?:train|teach|learn|memori[sz]e|study)\b(?!\s+(?:stations?|tracks?|rides?|"
        r"sets?|engines?|drivers?|tickets?|cars?|in|at|passing|crossing|through|under|over|beside|"
        r"next|and|with a|style)\b|\s*$)"
    )
    making = (
        r"\b(?:make|create|build|start|run|do|begin|produce|generate|want|need|get|set up|launch|"
        r"kick off)\s+(?:(?:me|us|up)\s+)?(?:an?|the|my|our|some|new|"
        r"another)?\s*(?:[\w'-]+\s+){0,3}(?:loras?|adapter|training|fine-?tune|custom model|"
        r"model)\b(?!\s+(?:car|train|airplane|plane|ship|railway|house|rocket))"
    )
    other = (
        r"\b(?:fine-?tun(?:e|ing)|dreambooth|training)\b(?!\s+(?:shoes?|wheels?|ground|room))|"
        r"\bretrain\b|\bloras?\s+(?:from|of|out of|with|on|for)\s+(?:these|this|the|my|our|those)\b|"
        r"\b(?:turn|make|convert)\s+(?:these|this|those|them|my \w+|our \w+)\b[^.]*\binto\s+(?:an?|my|"
        r"our)\s+(?:new |reusable )?(?:[\w-]+ )?(?:lora|style|character|model|adapter)\b|"
        r"\bremember\s+(?:this|these|that|my|our|his|her|the)\b|\b(?:get|make|have)\s+(?:you|it|"
        r"atelier)\s+(?:to\s+)?(?:learn|know|remember)\b|"
        r"\b(?:new|own)\s+(?:lora|adapter|character|style|product)\s+(?:from|out of|"
        r"based on)\s+(?:these|this|the|my|our|those)\b|\bpick up (?:this|the|our|my) (?:style|"
        r"look)\b|\bsave (?:this|these) as a (?:lora|style|character|product)\b"
    )
    if compiled(rf"\b{DETERMINER}\s+(?:[\w-]+\s+)?train\b").search(said) and not compiled(
        r"\blora|\btrain(?:ing)?\s+(?:on|an?|this|these|my|our)\b|\bthese\b"
    ).search(said):
        return False
    return any(compiled(pattern).search(said) for pattern in (verb, making, other))


def refers_back(said: str) -> bool:
    """Said of a picture that is there: 'it', 'the last one', 'same', 'again', 'another one', 'the background'."""
    strong = (
        rf"\b{PRONOUN}\b(?!\s+(?:is|was)\s+(?:a|an|called|named)\b)|\b(?:that|this|these|"
        rf"those)\b(?!\s+{RELATIVE}\b)(?!\s+(?:summer|winter|week|month|year|season|spring|autumn|fall|"
        r"weekend|friday|christmas|is|time of))|"
        r"\bthe (?:last|previous|first|second|third|fourth|same|current|latest|1st|2nd|3rd|4th|other|"
        r"left|right|earlier) (?:one|picture|image|photo|version|drawing|shot|result|seed|option|"
        r"variation|prompt|scene|banner|post|poster)\b|"
        r"\bthe (?:picture|image|photo|background|backdrop|colou?rs?(?!\s+of\s+(?:our|my|the)\b)|scene|"
        r"setting|subject|drawing|result)\b|\bbackground (?:to|should|in|more|less)\b|"
        r"\b(?:same|again|instead|redo|retry|reroll|re-roll|regenerate|re-?draw|rerun|undo|revert|"
        r"once more|one more|go back|do over|try again|repeat)\b|"
        r"\banother(?:\s+(?:one|version|take|try|go|variation|variant|option|picture|image|attempt|"
        rf"seed|round|look))?\s*(?:$|[,.!?]|\b(?:with|please|but|in|on|at|like)\b)|\b(?:{NUMBER}|some|"
        r"a few|a couple)\s+more\b\s*(?:$|[,.!?]|(?:versions?|variations?|variants?|options?|takes?|"
        r"pictures?|images?|like|of (?:these|those|them|it)|please|with|but|in|on)\b)|"
        r"\b(?:more|variations?|versions?|variants?) (?:like|of) (?:this|that|these|those|it|them)\b|"
        r"\b(?:new|different|fresh|other|next|random|another) seed\b|\b(?:different|other) (?:colou?r|"
        r"background|style|one|version|variation)\b|"
        r"\b(?:an?|the)\s+[\w-]+\s+one\b|\bones\b"
    )
    return compiled(strong).search(said) is not None


def edits(said: str) -> bool:
    """Begins like a change: 'add a hat', 'remove…', 'replace…', 'bigger', 'more…', 'without…', 'stronger style'."""
    said = opened(
        strip_start(
            said,
            (
                r"now",
                r"ok(?:ay)?",
                r"then",
                r"(?:can|could|would|will) (?:you|we)(?: please)?",
                r"i(?:'d| would) (?:like|prefer|love)(?: you)? to",
                r"i want(?: you)? to",
                r"please",
                r"let'?s",
                r"maybe",
                r"perhaps",
                r"just",
                r"i (?:want|prefer|'d prefer)",
                r"try",
                r"how about",
                r"what about",
            ),
        )
    )
    verbs = (
        r"add|remove|delete|erase|replace|swap|switch|change|recolou?r|colou?r|dye|tint|move|shift|"
        r"enlarge|upscale|shrink|adjust|tweak|edit|modify|zoom|resize|crop|rotate|flip|mirror|"
        r"brighten|darken|lighten|extend|"
        r"sharpen|blur|tone down|tone up|turn (?:up|down|the)|(?:turn|dial|crank) .+ (?:up|down)$|"
        r"take (?:away|out|off)|get rid of|lose|drop|leave out|ditch|keep|include|insert|put (?:the|a|"
        r"an|some) [\w-]+ (?:on|in|next|beside|behind)|give the|make the|set the|dial|increase|"
        r"decrease|reduce|lower|raise|correct|fix|swap out|"
        r"a (?:bit|little|touch|lot)|slightly|much|way|not (?:so|as) much|some more|"
        r"the [\w-]+ (?:[\w-]+ )?(?:should|could|must|needs to|has to|can) (?:be|have|look|go)|"
        r"(?:can|could|should|may|might|must|would) (?:the|its|his|her|their) [\w-]+ (?:[\w-]+ )?(?:be|have|look|go|"
        r"become|get|face|stand|sit|lie|point|wear|hold|move)|bigger|"
        r"larger|smaller|wider|taller|stronger|weaker|brighter|darker|warmer|cooler|closer|softer|"
        r"bolder|lighter|heavier|more|less|without|no|higher|lower|cut|use|with|but|only|not|too|in|"
        r"on|at|against|next to|beside|near|behind|wearing|holding|plus|i(?:'d| would) rather"
    )
    return compiled(rf"^(?:{verbs})\b").match(said) is not None


def starts_anew(said: str) -> bool:
    """'Draw a…', 'I need a banner…', 'a picture of…': a new picture, whatever follows."""
    verbs = (
        r"(?:draw|paint|create|generate|design|sketch|illustrate|produce|compose|imagine|visuali[sz]e|"
        r"render|need|want|like|love|show|give|have|get|make|do|see|craft|mock up|after|prepare|build|"
        r"picture|put together|come up with|whip up)"
    )
    thing = (
        rf"(?:(?:me|us|up)\s+){{0,4}}(?:an?|some|{NUMBER}|our|my)\s+(?!more\b|couple\s+more\b|"
        r"(?:[\w-]+\s+)?one\b|ones\b|(?:different|bigger|smaller|larger|stronger|weaker|wider|"
        r"new)\s+(?:seed|colou?r|background|style|version|one|variation)\b)"
    )
    noun = any_of(with_plurals([*load("words")["brand"]["assets"], *words("product", "marks")]))
    bare = rf"(?:(?:me|us)\s+)?(?:[\w-]+\s+)?{noun}(?=$|[,.:!?]|\s+(?:for|of|with|about|showing|featuring|to)\b)"
    return compiled(rf"\b{verbs}\s+(?:{thing}|{bare})").search(said) is not None and not compiled(
        r"\b(?:rather|instead(?! of)|the same|same but|again|another one|of (?:it|this|that|these|them)|"
        r"(?:make|give|put|turn|do|redo|change|have) (?:it|him|her|them|this|that)|"
        r"^(?:can|could|should|would|may|might|must) "
        r"(?:the|its|his|her|their)|(?:my|this|that|"
        r"attached|last) (?:photo|picture|image|pic|drawing|sketch|one))\b"
    ).search(said)


def transfers_style(said: str) -> bool:
    """'Restyle it', 'apply … to', 'turn this into…', 'repaint it as…', 'this but in the style of…'."""
    pictured = (
        r"(?:my|the|our|this|that|the last|the attached|attached|last|"
        r"previous)\s+(?:[\w-]+\s+)?(?:photo|picture|image|pic|drawing|sketch|shot|one|photograph|"
        r"illustration|painting|selfie|portrait|render|result|upload|file)s?(?:\s+of\s+(?:an?|the|my|"
        r"our|me)\s*[\w-]*)?"
    )
    thing = rf"(?:it|this|that|these|them|{pictured})"
    manner = r"(?:in\s+(?:the\s+)?(?:style|manner|look)\s+of|in\s+[\w -]+\s+(?:style|look)\b|as\b|like\b)"
    pattern = (
        r"\b(?:re-?styl(?:e|ing)|styli[sz]e|style[- ]transfer|transfer (?:the|our|this|that|"
        r"my) [\w -]*(?:style|look))\b|\bappl(?:y|ying)\b.*\b(?:style|look|lora|brand|branding|"
        r"treatment|filter|effect|palette|to|on)\b|"
        r"\b(?:make|have|let)\s+(?:it|this|that|them)\s+look\s+(?:like|as if)\b|"
        r"\b(?:make|have|let)\s+(?:my|the|our|this|that) (?:[\w-]+ )?(?:photo|picture|image|pic|"
        r"drawing|sketch|selfie)s?(?:\s+of\s+(?:an?|the|my|our|me)\s*[\w-]*)?\s+look\b|"
        rf"(?:^{thing}|\b(?:want|like|love|have|need|see)\s+{pictured})(?:,?\s+(?:but|only|just|now|done|drawn|"
        rf"redrawn|painted|made|shown|please|to be|to look|look|looking)\b)*,?\s+{manner}|"
        rf"\bgive\s+{thing}\s+(?:an?|the|our|some)\s+.*\b(?:treatment|look|style|feel|makeover|touch|effect|filter)\b|"
        r"\b(?:convert|transform|repaint|render|re-?render|recreate|reimagine|translate|re-?do|redraw|"
        rf"re-?draw|turn|paint|restage|remake|bring|put|get|make)\s+{thing}(?:\s+(?:for (?:me|us)|"
        r"please))?\s*(?:in(?:to|to look like)?|as|like|to|using|with|over)\b"
    )
    return compiled(pattern).search(said) is not None
