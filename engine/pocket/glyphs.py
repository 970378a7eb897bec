"""The picture book that Pocket's scenes are cut from: one small picture of every object, and the words for each.

Pictures are Microsoft's Fluent Emoji (MIT), as the npm package @iconify-json/fluent-emoji 1.2.7 holds them:

python -m engine.pocket.glyphs                    draw atlas.webp and glyphs.json from icons.json.xz
python -m engine.pocket.glyphs --import PACKAGE   before that, take icons.json.xz anew from the unpacked package

`load_atlas()` reads what was drawn, and needs no more than Pillow; drawing needs resvg_py.
"""

import argparse
import io
import json
import lzma
import math
import multiprocessing
import re
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

FOLDER = Path(__file__).parent / "atlas"
ICONS = FOLDER / "icons.json.xz"
CELL = 256  # px: a glyph fills its cell, less MARGIN of it on each side
MARGIN = 1 / 128
COLUMNS = 24  # of the sheet

# Category: icon and names of each glyph; without names, the icon's own. Names after the first are synonyms.
KNOWN = {
    "animal": """panda|koala|tiger|cow|monkey|chicken|bird|duck|eagle|bat|wolf|horse|unicorn|honeybee bee|butterfly
        |snail|lady-beetle ladybug|spider|turtle|snake|t-rex dinosaur|shrimp|jellyfish|fish|dolphin
        |spouting-whale whale|shark|crocodile|zebra|elephant|giraffe|ewe sheep|deer|peacock|parrot|raccoon
        |chipmunk squirrel,chipmunk|hedgehog|flamingo|polar-bear""",
    "food": """red-apple apple|pear|tangerine|lemon|banana|watermelon|grapes|strawberry|cherries|peach|pineapple|tomato
        |avocado|broccoli|hot-pepper chili,chili pepper|ear-of-corn corn|carrot|croissant|bread|pretzel
        |cheese-wedge cheese|egg|cooking fried egg|pancakes|cut-of-meat steak|poultry-leg chicken leg,drumstick|hot-dog
        |hamburger burger,hamburger|french-fries fries,french fries|pizza|sandwich|taco|green-salad salad
        |spaghetti spaghetti,pasta|steaming-bowl noodles,ramen|sushi|soft-ice-cream ice cream cone|ice-cream|cupcake
        |birthday-cake|shortcake cake|lollipop|candy|chocolate-bar chocolate,chocolate bar|popcorn
        |doughnut donut,doughnut|cookie|honey-pot honey""",
    "drink": """glass-of-milk milk|hot-beverage coffee|teacup-without-handle tea|bottle-with-popping-cork champagne
        |wine-glass wine,wine glass|cocktail-glass cocktail,martini|beer-mug beer|cup-with-straw soda,soft drink
        |bubble-tea""",
    "plant": """cactus|christmas-tree|evergreen-tree pine tree|deciduous-tree tree|palm-tree
        |four-leaf-clover clover,four leaf clover|maple-leaf|mushroom|bouquet bouquet,flowers|tulip|rose|cherry-blossom
        |blossom daisy,flower|sunflower|potted-plant plant,potted plant,houseplant|seedling seedling,sprout""",
    "vehicle": """automobile car|taxi|bus|racing-car|police-car|ambulance|fire-engine fire truck
        |delivery-truck truck,delivery truck|tractor|kick-scooter scooter|bicycle bicycle,bike
        |motorcycle motorcycle,motorbike|locomotive train,steam train|helicopter|airplane airplane,plane|rocket
        |sailboat sailboat,boat|ferry ship,ferry|canoe|skateboard|satellite""",
    "building": """house house,home|office-building|convenience-store shop,store|school|factory|castle
        |japanese-castle pagoda|church|classical-building temple|tokyo-tower tower|fountain|tent|circus-tent
        |ferris-wheel""",
    "clothing": """glasses|sunglasses|t-shirt shirt,t-shirt|jeans jeans,pants|scarf|gloves|coat coat,jacket|socks|dress
        |shorts|purse|graduation-cap|high-heeled-shoe high heel|thong-sandal flip flop,sandal|womans-boot boot|crown
        |womans-hat hat,sun hat|top-hat|billed-cap cap,baseball cap|rescue-workers-helmet helmet|ring""",
    "product": """lipstick|gem-stone gem,diamond|watch|mobile-phone phone,smartphone|laptop|keyboard
        |desktop-computer computer,monitor|camera|movie-camera video camera,movie camera|television television,tv|radio
        |microphone|alarm-clock|mantelpiece-clock clock|hourglass-done hourglass|light-bulb|coin|money-bag|credit-card
        |closed-book book|spiral-notepad notebook,notepad|wrapped-gift gift,present|balloon|ribbon bow,ribbon
        |envelope envelope,letter|pen|pencil|paintbrush|scissors|locked lock,padlock|key|telephone|teddy-bear|chair|bed
        |couch-and-lamp sofa,couch|mirror|soap|toothbrush|basket|shopping-cart|umbrella|luggage suitcase
        |framed-picture picture frame,painting|video-game game controller,gamepad|game-die dice|puzzle-piece
        |red-paper-lantern lantern,paper lantern|crystal-ball|party-popper|fork-and-knife-with-plate plate
        |kitchen-knife knife,kitchen knife|world-map map|compass|microscope|calendar|scroll|ticket
        |label price tag,tag|oil-drum barrel""",
    "tool": """hammer|axe|pick pickaxe|dagger sword,dagger|shield|wrench|gear|magnet|broom|anchor|bomb|bow-and-arrow
        |magnifying-glass-tilted-left magnifying glass|megaphone|bell""",
    "instrument": """guitar|musical-keyboard piano|drum|saxophone|trumpet|violin
        |musical-note music note,musical note""",
    "sport": """soccer-ball soccer ball,football|basketball|american-football|baseball|tennis tennis racket
        |ping-pong ping pong paddle|boxing-glove|ice-skate|fishing-pole fishing rod|bullseye target,dartboard|kite
        |trophy|sports-medal medal,gold medal""",
    "nature": """sun|crescent-moon moon,crescent moon|star|cloud|cloud-with-rain rain cloud|rainbow|snowflake
        |snowman-without-snow snowman|fire fire,flame|water-wave wave|globe-showing-americas globe,earth
        |ringed-planet planet|volcano|snow-capped-mountain mountain|high-voltage lightning,lightning bolt
        |droplet water drop,drop|desert-island island|rock rock,stone|spiral-shell seashell,shell|feather""",
    "face": """grinning-face smiley,happy face|smiling-face-with-sunglasses cool face
        |smiling-face-with-heart-eyes heart eyes|sleeping-face|clown-face clown|skull|jack-o-lantern pumpkin
        |santa-claus santa""",
    "people": """astronaut|ninja|person-mage wizard""",
    "thing": """red-heart heart|thumbs-up|brain|mouth lips|tooth|artist-palette palette|magic-wand
        |performing-arts theater masks|speech-balloon speech bubble|collision explosion""",
}  # fmt: skip

# Whole subjects that base training never sees, so that a LoRA can be seen to add them.
HELD_OUT = {
    "character": "crab|ghost|lobster|beaver|dodo|mammoth",
    "goods": """handbag|telescope|lotion-bottle|roller-skate|hiking-boot|flying-saucer|nesting-dolls nesting doll
        |bento-box lunch box|diya-lamp oil lamp|timer-clock kitchen timer""",
}

# Icon: the paths, by how they begin, that are left out. The couch stands alone.
LEFT_OUT = {"couch-and-lamp": ("M21.86 9.146", "M21.867 6.318", "M25.349 29.783")}

MASS = frozenset({
    "cheese", "bread", "salad", "spaghetti", "pasta", "ramen", "sushi", "ice cream", "candy", "chocolate", "popcorn",
    "honey", "corn", "broccoli", "milk", "coffee", "tea", "bubble tea", "champagne", "wine", "beer", "soda", "fire",
    "lightning", "soap", "earth",
})  # fmt: skip
SINGULAR_S = ("bus", "cactus", "octopus", "dress", "compass", "hourglass", "wine glass", "magnifying glass")
# A last word and its plural, where spelling does not tell.
PLURAL = {
    "mouse": "mice", "child": "children", "tooth": "teeth", "snowman": "snowmen", "wolf": "wolves", "leaf": "leaves",
    "knife": "knives", "scarf": "scarves", "fish": "fish", "jellyfish": "jellyfish", "sheep": "sheep", "deer": "deer",
    "shrimp": "shrimp", "dice": "dice", "cactus": "cacti", "tomato": "tomatoes", "volcano": "volcanoes",
    "bow and arrow": "bows and arrows", "bottle of wine": "bottles of wine", "thumbs up": "thumbs up",
}  # fmt: skip


def is_plural(noun: str) -> bool:
    """Whether a noun already names several, or what only has a plural: grapes, scissors, heart eyes."""
    return noun.endswith("s") and noun not in SINGULAR_S


def is_countable(noun: str) -> bool:
    """Whether there can be two of it in English: "two foxes", but neither "two rice" nor "two scissors"."""
    return not is_plural(noun) and noun not in MASS


def plural(noun: str) -> str:
    """'foxes', 'kitchen knives', 'cherries': of any drawable noun; one that cannot be counted comes back as it is."""
    if noun in PLURAL or not is_countable(noun):
        return PLURAL.get(noun, noun)
    before, _, last = noun.rpartition(" ")
    if last not in PLURAL and re.search("[^aeiou]y$", last):
        last = f"{last[:-1]}ies"
    else:
        last = PLURAL.get(last, last + ("es" if last.endswith(("s", "x", "z", "ch", "sh")) else "s"))
    return f"{before} {last}".lstrip()


@dataclass(frozen=True)
class Glyph:
    """A row of KNOWN or HELD_OUT: the icon's slug, and names of which the first is the label."""

    icon: str
    names: tuple[str, ...]
    category: str
    held_out: bool


def parse(table: dict[str, str], held_out: bool) -> tuple[Glyph, ...]:
    rows = [(category, *item.strip().partition(" ")) for category, text in table.items() for item in text.split("|")]
    return tuple(
        Glyph(icon, tuple((names or icon.replace("-", " ")).split(",")), category, held_out)
        for category, icon, _, names in rows
    )


GLYPHS = parse(KNOWN, held_out=False) + parse(HELD_OUT, held_out=True)  # in the order of the atlas's cells
COUNTABLE = frozenset(noun for glyph in GLYPHS for noun in glyph.names if is_countable(noun))


@dataclass(frozen=True)
class Atlas:
    """`pictures`: (n, 4, CELL, CELL) uint8 RGBA. A noun is a word and a cell; several nouns may share a cell."""

    pictures: Tensor
    cell: dict[str, int]
    category: dict[str, str]
    held_out: tuple[str, ...]

    @property
    def known(self) -> tuple[str, ...]:
        return tuple(noun for noun in self.cell if noun not in self.held_out)


def load_atlas() -> Atlas:
    """Read `atlas/` as it was drawn."""
    entries = json.loads((FOLDER / "glyphs.json").read_text())
    with Image.open(FOLDER / "atlas.webp") as sheet:
        pixels = torch.from_numpy(np.asarray(sheet.convert("RGBA")).copy())
    rows, columns = pixels.shape[0] // CELL, pixels.shape[1] // CELL
    cells = pixels.view(rows, CELL, columns, CELL, 4).permute(0, 2, 4, 1, 3).reshape(-1, 4, CELL, CELL)
    return Atlas(
        pictures=cells[: 1 + max(entry["cell"] for entry in entries.values())].contiguous(),
        cell={noun: entry["cell"] for noun, entry in entries.items()},
        category={noun: entry["category"] for noun, entry in entries.items()},
        held_out=tuple(noun for noun, entry in entries.items() if entry["held_out"]),
    )


def rasterise(size: int, glyphs: Sequence[Glyph] = GLYPHS) -> Tensor:
    """Draw glyphs from their vectors: (n, 4, size, size) uint8 RGBA, straight alpha, each filling its square.

    All cores draw, as a large glyph takes half a second. Raises ImportError where resvg_py is missing.
    """
    icons = json.loads(lzma.decompress(ICONS.read_bytes()))
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("fork")) as pool:
        jobs = [pool.submit(draw_icon, **icons[glyph.icon], size=size) for glyph in glyphs]
        pictures = [job.result() for job in jobs]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


def draw_icon(body: str, width: float, height: float, size: int) -> np.ndarray:
    """One icon, its ink centred in a transparent square, (size, size, 4): the ink is found first, then drawn."""
    inner = f'<svg width="{width}" height="{height}" viewBox="0 0 {width} {height}">{body}</svg>'
    side, pixels = max(width, height), 256
    ink = np.argwhere(draw_svg(inner, (0, 0, side), pixels)[..., 3] > 8) * side / pixels
    (top, left), (bottom, right) = ink.min(0), ink.max(0) + side / pixels
    side = max(bottom - top, right - left) / (1 - 2 * MARGIN)
    return draw_svg(inner, ((left + right - side) / 2, (top + bottom - side) / 2, side), size)


def draw_svg(inner: str, view: tuple[float, float, float], size: int) -> np.ndarray:
    """The square of a drawing that `view` names, as (left, top, side), in (size, size, 4) uint8."""
    try:
        from resvg_py import svg_to_bytes
    except ImportError as error:
        raise ImportError("Glyphs are drawn by resvg_py: pip install 'resvg_py>=0.5', or the dev extra.") from error
    left, top, side = view
    box = f'width="{size}" height="{size}" viewBox="{left} {top} {side} {side}"'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" {box}>{inner}</svg>'
    try:
        data = bytes(svg_to_bytes(svg_string=svg, width=size, height=size))
    except BaseException as error:  # resvg 0.5 panics on two icons at some sizes, and a panic is no Exception
        if type(error).__name__ != "PanicException":
            raise
        finer = Image.fromarray(draw_svg(inner, view, size + size // 3))
        return np.asarray(finer.convert("RGBa").resize((size, size), Image.Resampling.BOX).convert("RGBA"))
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGBA"))


def import_icons(package: Path) -> None:
    """Write icons.json.xz: of an unpacked @iconify-json package, the icons of GLYPHS."""
    found = json.loads((package / "icons.json").read_text())
    icons = {
        glyph.icon: {
            "body": compact(glyph.icon, found["icons"][glyph.icon]["body"]),
            "width": found["icons"][glyph.icon].get("width", found["width"]),
            "height": found["icons"][glyph.icon].get("height", found["height"]),
        }
        for glyph in GLYPHS
    }
    ICONS.write_bytes(lzma.compress(json.dumps(icons, separators=(",", ":")).encode(), preset=9))


def compact(icon: str, body: str) -> str:
    """An icon's drawing without what LEFT_OUT names, its ids numbered."""
    for start in LEFT_OUT.get(icon, ()):
        body = re.sub(rf'<path [^>]*d="{re.escape(start)}[^>]*/>', "", body)
    number = {name: f"i{index}" for index, name in enumerate(re.findall(r'\bid="([^"]+)"', body))}
    return re.sub(r'(id="|"#|url\(#)([^")]+)', lambda match: match[1] + number.get(match[2], match[2]), body)


def build() -> None:
    """Draw every glyph into `atlas/atlas.webp`, and write `glyphs.json` beside it."""
    cells = rasterise(CELL).permute(0, 2, 3, 1)
    sheet = torch.zeros(math.ceil(len(GLYPHS) / COLUMNS) * COLUMNS, CELL, CELL, 4, dtype=torch.uint8)
    sheet[: len(cells)] = cells
    pixels = sheet.view(-1, COLUMNS, CELL, CELL, 4).transpose(1, 2).reshape(-1, COLUMNS * CELL, 4)
    Image.fromarray(pixels.numpy()).save(FOLDER / "atlas.webp", quality=90, method=6)
    entries = {
        name: {"cell": cell, "category": glyph.category, "held_out": glyph.held_out}
        for cell, glyph in enumerate(GLYPHS)
        for name in glyph.names
    }
    (FOLDER / "glyphs.json").write_text(json.dumps(entries, indent=0) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--import", dest="package", type=Path)
    if package := parser.parse_args().package:
        import_icons(package)
    build()
