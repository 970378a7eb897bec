"""Scenes: what is in a picture is sampled as numbers and told in words; on the CPU, equal for equal seeds.

A scene lays one or two kinds of things on a ground: glyphs from the picture book, products (lit solids) and characters
(rigs). Drawing units are the picture's height: y is 0..1, x is 0.5 ± half the aspect. One batch has one shape.

lexicon.py knows the nouns, captions.py the words, layout.py where things go, renderer.py draws.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from engine.pocket.backdrops import BACKDROPS, COLOURED, COLOURS
from engine.pocket.captions import (
    LAYOUTS,
    PLACES,
    RELATIONS,
    SIZES,
    Dice,
    ProductFacts,
    Thing,
    Told,
    caption,
    character_words,
    glyph_words,
    product_words,
)
from engine.pocket.cast import SPECIES, Characters, sample_characters
from engine.pocket.characters import shown
from engine.pocket.glyphs import is_countable
from engine.pocket.lexicon import (
    NATURAL,
    SORTS,
    held_out,
    index_of,
    kind_of,
    names_of,
    natural_table,
    nouns,
    unseen_tables,
)
from engine.pocket.looks import COLOURLESS, GROUNDLESS, LOOKS, STYLES
from engine.pocket.products import (
    FLAT,
    LABELS,
    LID_NOUN,
    LIGHTS,
    MATERIALS,
    Products,
    build_word,
    label_words,
    light_words,
    sample_products,
    view_words,
)
from engine.pocket.solids import KINDS
from engine.pocket.sprites import listed, spread

SIZE = 256  # px: the side of a square
BUCKETS = {"square": (256, 256), "portrait": (288, 224), "landscape": (224, 288), "story": (336, 192),
           "wide": (192, 336), "banner": (144, 432)}  # fmt: skip  # height, width in px
WORDS = 40  # uniform numbers that a caption may use


# Sampling.


@dataclass(frozen=True)
class Menu:
    """What may be drawn, and how often.

    `nouns` and `others`: of the first and the second thing. `kinds`: shares of glyphs, products and characters among
    first and second things. `pair`, `alike`, `pattern`: shares of two things, of 2-4 alike, of patterns. `held`: fixed
    columns of products and characters, by noun. `seen`: leave out what `unseen` says.
    """

    nouns: tuple[str, ...]
    others: tuple[str, ...] = ()
    kinds: tuple[float, float, float] = (0.42, 0.27, 0.31)
    looks: tuple[str, ...] = tuple(STYLES)
    look_share: float = 0.42
    pair: float = 0.22
    alike: float = 0.10
    pattern: float = 0.04
    tint: float = 0.4
    natural: float = 0.5
    colour: str | None = None
    held: dict[str, dict[str, Any]] | None = None
    seen: bool = False


class Cast(NamedTuple):
    """Products and characters as numbers, and the rows in which each noun stands."""

    products: Products
    characters: Characters


@dataclass(frozen=True)
class Scenes:
    """n scenes as numbers. `noun`, `row`, `tint` (n, 2): of `nouns()`, of the cast, of COLOURS; -1 for none.

    `count` (n,): 1-4 alike, 0 a pattern. Others (n,) index their tables; `pose` (n, 16), `u` (n, 8), `words`
    (n, WORDS) are uniform; `grain` (n, 1, 12, 36) is normal. `shape`: a key of BUCKETS.
    """

    noun: Tensor
    row: Tensor
    tint: Tensor
    count: Tensor
    relation: Tensor
    size: Tensor
    place: Tensor
    layout: Tensor
    background: Tensor
    colour: Tensor
    look: Tensor
    pose: Tensor
    u: Tensor
    grain: Tensor
    words: Tensor
    natural: Tensor
    shape: str
    cast: Cast

    def __len__(self) -> int:
        return self.noun.shape[0]

    def __getitem__(self, rows: slice | Tensor) -> "Scenes":
        whole = ("shape", "cast")
        return replace(self, **{f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name not in whole})


def draw_nouns(n: int, names: Sequence[str], kinds: Sequence[float], generator: torch.Generator) -> Tensor:
    """n nouns (indices): each kind in its share, and evenly within a kind."""
    tables = [index_of([noun for noun in names if nouns()[noun] == sort]) for sort in SORTS]
    share = torch.tensor([part if len(table) else 0.0 for part, table in zip(kinds, tables, strict=True)])
    edges = share.cumsum(0) / share.sum()
    kind = torch.bucketize(torch.rand(n, generator=generator), edges).clamp(max=2)
    picks = torch.stack(
        [t[spread(n, len(t), generator)] if len(t) else torch.zeros(n, dtype=torch.long) for t in tables]
    )
    return picks.gather(0, kind[None])[0]


def sample(n: int, menu: Menu, generator: torch.Generator, shape: str = "square", cast: Cast | None = None) -> Scenes:
    """Draw n scenes of one shape from the menu; with a `cast`, its products and characters, else new ones."""
    u = torch.rand(n, 8, generator=generator)
    first = draw_nouns(n, menu.nouns, menu.kinds, generator)
    second = draw_nouns(n, menu.others or menu.nouns, menu.kinds, generator)
    paired = (u[:, 0] < menu.pair) & (second != first)
    noun = torch.stack([first, torch.where(paired, second, -1)], 1)
    count = counts(u[:, 0], first, paired, menu, generator)
    colour = spread(n, len(COLOURS), generator)
    background = spread(n, len(BACKDROPS), generator)
    cast, row, tint, natural = players(noun, menu, generator, cast)
    glyph = kind_of(noun) == 0
    tint = torch.where(glyph, glyph_tints(noun, menu, generator), tint)
    look = torch.tensor([list(LOOKS).index(look) for look in menu.looks] or [0])
    look = torch.where(u[:, 1] < menu.look_share, look[spread(n, len(look), generator)], 0)
    if menu.seen:
        look = torch.where(unseen_tables()[1][noun.clamp(min=0), look[:, None]].logical_and(noun >= 0).any(1), 0, look)
    alone = (count == 1) & ~paired
    aspect = BUCKETS[shape][1] / BUCKETS[shape][0]
    size, place, layout = arranged(u, alone, aspect)
    layout = torch.where(count == 0, LAYOUTS.index("pattern"), layout)
    background = torch.where(count == 0, 0, background)  # on plain
    return Scenes(
        noun=noun, row=row, tint=tint, count=count, relation=torch.where(paired, relations(u[:, 4]), 0), size=size,
        place=place, layout=layout, background=background, colour=ground_colours(colour, tint, generator), look=look,
        pose=torch.rand(n, 16, generator=generator), u=torch.rand(n, 8, generator=generator),
        grain=torch.randn(n, 1, 12, 36, generator=generator), words=torch.rand(n, WORDS, generator=generator),
        natural=natural, shape=shape, cast=cast,
    )  # fmt: skip


def counts(u: Tensor, first: Tensor, paired: Tensor, menu: Menu, generator: torch.Generator) -> Tensor:
    """1, or 2-4 alike of what can be counted, or 0 for a pattern."""
    countable = torch.tensor([is_countable(noun) for noun in nouns()])[first]
    many = 2 + spread(len(u), 3, generator)
    left = u - menu.pair
    count = torch.where((left >= 0) & (left < menu.alike) & countable, many, 1)
    count = torch.where((left >= menu.alike) & (left < menu.alike + menu.pattern) & countable, 0, count)
    return torch.where(paired, 1, count)


def relations(u: Tensor) -> Tensor:
    """Beside in 64 % of pairs, above and behind in 18 % each."""
    return 1 + torch.bucketize(u.contiguous(), torch.tensor([0.64, 0.82]))


def arranged(u: Tensor, alone: Tensor, aspect: float) -> tuple[Tensor, Tensor, Tensor]:
    """Size, place and layout of lone objects; copy space only where there is room."""
    size = torch.bucketize(u[:, 2].contiguous(), torch.tensor([0.64, 0.78, 0.90]))
    place = torch.bucketize(u[:, 3].contiguous(), torch.tensor([0.60, 0.73, 0.86]))
    aside = (place == 1) | (place == 2)
    copy = aside & (u[:, 5] < (0.5 if aspect >= 1 else 0.0))
    layout = torch.where(copy, torch.where(place == 1, LAYOUTS.index("copy right"), LAYOUTS.index("copy left")), 0)
    close = size == SIZES.index("close-up")
    return size * alone, torch.where(close, 0, place) * alone, torch.where(close, 0, layout) * alone


def players(
    noun: Tensor, menu: Menu, generator: torch.Generator, cast: Cast | None
) -> tuple[Cast, Tensor, Tensor, Tensor]:
    """The cast; each thing's row in it, its colour (-1 for glyphs), and whether that is natural, each (n, 2)."""
    kind = kind_of(noun)
    wanted = [(kind == part).nonzero() for part in (1, 2)]
    if cast is None:
        names = numbered(nouns())
        said = [[names[index] for index in listed(noun[where[:, 0], where[:, 1]])] for where in wanted]
        cast = new_cast(said[0], said[1], menu, generator)
        rows = [torch.arange(len(where)) for where in wanted]
    else:
        rows = [rows_for(noun[where[:, 0], where[:, 1]], cast, generator) for where in wanted]
    row, tint = torch.full_like(noun, -1), torch.full_like(noun, -1)
    for where, chosen, colour in zip(wanted, rows, (cast.products.colour, cast.characters.fur), strict=True):
        row[where[:, 0], where[:, 1]] = chosen
        tint[where[:, 0], where[:, 1]] = colour[chosen]
    natural = natural_table()[noun.clamp(min=0), tint.clamp(min=0)] & (kind == 2)
    return cast, row, tint, natural


def rows_for(noun: Tensor, cast: Cast, generator: torch.Generator) -> Tensor:
    """A random row of the cast for each noun (m,), all products or all characters."""
    names = numbered(nouns())
    chosen, u = torch.zeros(len(noun), dtype=torch.long), torch.rand(len(noun), generator=generator)
    for index in sorted(set[int](listed(noun))):
        name, mine = names[index], noun == index
        table = cast.products.kind if nouns()[name] == "product" else cast.characters.species
        there = (table == list(KINDS if nouns()[name] == "product" else SPECIES).index(name)).nonzero().squeeze(1)
        if not len(there):
            raise ValueError(f"the cast has no {name}")
        chosen[mine] = there[(u[mine] * len(there)).long()]
    return chosen


def new_cast(products: Sequence[str], characters: Sequence[str], menu: Menu, generator: torch.Generator) -> Cast:
    """One product or character for each name, of the menu's held columns and in the colours that it allows."""
    kind = torch.tensor([list(KINDS).index(name) for name in products], dtype=torch.long)
    made = sample_products(len(products), generator, kind=kind)
    which = torch.tensor([list(SPECIES).index(name) for name in characters], dtype=torch.long)
    fur = animal_colours(characters, menu, generator)
    people = sample_characters(len(characters), generator, species=which, fur=fur)
    if menu.seen:
        made = replace(made, colour=allowed(index_of(products), made.colour))
        people = replace(people, fur=allowed(index_of(characters), people.fur))
    clash = people.accent == people.fur
    people = replace(people, accent=torch.where(clash, (people.accent + 5) % len(COLOURS), people.accent))
    for names, table in ((products, made), (characters, people)):
        for noun in set(menu.held or ()) & set(names):
            rows = torch.tensor([name == noun for name in names], dtype=torch.bool)
            for column, value in (menu.held or {})[noun].items():
                getattr(table, column)[rows] = torch.as_tensor(value, dtype=getattr(table, column).dtype)
    return Cast(made, people)


def animal_colours(names: Sequence[str], menu: Menu, generator: torch.Generator) -> Tensor:
    """Natural colours in a share of `menu.natural`, else any, (len(names),)."""
    any_colour = spread(len(names), len(COLOURS), generator)
    u = torch.rand(len(names), 2, generator=generator)
    usual = [NATURAL[name].split() for name in names]
    natural = [list(COLOURS).index(row[int(x * len(row))]) for row, x in zip(usual, listed(u[:, 1]), strict=True)]
    return torch.where(u[:, 0] < menu.natural, torch.tensor(natural, dtype=torch.long), any_colour)


def allowed(noun: Tensor, colour: Tensor) -> Tensor:
    """The colours, each moved on to the next in which base training shows its noun."""
    forbidden = unseen_tables()[0]
    for _ in COLOURS:
        colour = torch.where(forbidden[noun, colour], (colour + 1) % len(COLOURS), colour)
    return colour


def glyph_tints(noun: Tensor, menu: Menu, generator: torch.Generator) -> Tensor:
    """Colours of glyphs, (n, 2), -1 for their own."""
    tint = torch.randint(len(COLOURS), noun.shape, generator=generator)
    if menu.seen:
        tint = torch.where(unseen_tables()[0][noun.clamp(min=0), tint], -1, tint)
    tint = torch.where(torch.rand(noun.shape, generator=generator) < menu.tint, tint, -1)
    if menu.colour:
        tint[:, 0] = list(COLOURS).index(menu.colour)
    return torch.where(noun < 0, -1, tint)


def ground_colours(colour: Tensor, tint: Tensor, generator: torch.Generator) -> Tensor:
    """The ground's colours, moved on where an object has the same, as nobody would see it."""
    step = torch.randint(1, len(COLOURS), colour.shape, generator=generator)
    for _ in range(3):  # at most two are taken
        colour = torch.where((colour[:, None] == tint).any(1), (colour + step) % len(COLOURS), colour)
        step = torch.ones_like(step)
    return colour


# Words.


def numbered(names: Iterable[str]) -> dict[int, str]:
    return dict(enumerate(names))


def told(scenes: Scenes) -> list[Told]:
    """What each scene shows, in words; what a look hides is not told."""
    names, colours, looks, backdrops = numbered(nouns()), numbered(COLOURS), numbered(LOOKS), numbered(BACKDROPS)
    joints, places, sizes, layouts = (numbered(table) for table in (RELATIONS, PLACES, SIZES, LAYOUTS))
    shows = iter(shown(scenes.cast.characters[used(scenes, 2)]))
    facts = iter(product_facts(scenes.cast.products.rows(used(scenes, 1))))
    columns = ("noun", "tint", "count", "relation", "size", "place", "layout", "background", "colour", "look", "words",
               "natural")  # fmt: skip
    rows: list[Told] = []
    table: Iterable[tuple[Any, ...]] = zip(*(listed(getattr(scenes, name)) for name in columns), strict=True)
    for values in table:
        noun, tint, count, relation, size, place, layout, background, colour, look, words, natural = values
        dice, things = Dice(words[::-1]), list[Thing]()
        for slot in (0, 1):
            if noun[slot] < 0:
                continue
            name = names[noun[slot]]
            spoken = dice.pick(names_of()[name]) if dice.says(0.5) else name
            if nouns()[name] == "glyph":
                thing = glyph_words(name, spoken, colours[tint[slot]] if tint[slot] >= 0 else "")
            elif nouns()[name] == "product":
                thing = product_words(next(facts), spoken, dice)
            else:
                thing = character_words(next(shows), spoken, natural[slot], dice)
            things.append(colourless(thing, spoken) if looks[look] in COLOURLESS else thing)
        ground = backdrops[background]
        hidden = ground not in COLOURED or looks[look] in GROUNDLESS
        rows.append(
            Told(tuple(things), count, joints[relation], places[place], sizes[size], ground,
                 "" if hidden else colours[colour], looks[look], layouts[layout], scenes.shape)
        )  # fmt: skip
    return rows


def colourless(thing: Thing, spoken: str) -> Thing:
    """The thing without what a colourless look hides: only its name, pose and view are left."""
    plain = glyph_words(thing.noun, spoken, "")
    return plain._replace(tails=thing.tails if thing.pose else (), expression=thing.expression, pose=thing.pose,
                          view=thing.view)  # fmt: skip


def used(scenes: Scenes, kind: int) -> Tensor:
    """Rows of the cast that the scenes use, first and second things interleaved."""
    return scenes.row[kind_of(scenes.noun) == kind]


def product_facts(products: Products) -> list[ProductFacts]:
    """What can be said of each product."""
    kinds, colours, materials, labels, lights = (
        numbered(table) for table in (KINDS, COLOURS, MATERIALS, LABELS, LIGHTS)
    )
    columns = ("kind", "material", "colour", "accent", "lid", "label", "light", "words", "shape")
    rows: list[ProductFacts] = []
    values: Iterable[tuple[Any, ...]] = zip(*(listed(getattr(products, name)) for name in columns), strict=True)
    for index, (kind, material, colour, accent, lid, label, light, words, shape) in enumerate(values):
        name, stuff = kinds[kind], materials[material]
        spoken = {"glossy": ("glossy", "shiny"), "metal": ("metal", "metallic")}.get(stuff, (stuff, stuff))
        top = LID_NOUN.get(name, "")
        top = (
            f"{colours[lid]} {top}" if top.endswith("s") else f"a {colours[lid]} {top}".replace("a orange", "an orange")
        )
        view = view_words(products, index, words[3])
        angle = "" if not view else "above" if "above" in view else "eye level"
        rows.append(
            ProductFacts(
                name, colours[colour], build_word(name, shape[0]), spoken[int(words[0] * 2)],
                label_words(labels[label], colours[accent], name in FLAT, words[1]), top if name in LID_NOUN else "",
                view, angle, lights[light], light_words(lights[light], words[4]),
            )
        )  # fmt: skip
    return rows


def captions(scenes: Scenes) -> list[str]:
    return [caption(row, words) for row, words in zip(told(scenes), listed(scenes.words), strict=True)]


# Menus.


def base_menu() -> Menu:
    """What the base learns: known nouns, trained styles, and nine tenths of the combinations."""
    out = set(held_out())
    return Menu(nouns=tuple(noun for noun in nouns() if noun not in out), seen=True)


def every_menu() -> Menu:
    """Everything that the renderer can draw: for those who judge."""
    return Menu(nouns=tuple(nouns()), looks=tuple(LOOKS)[1:], look_share=0.5)
