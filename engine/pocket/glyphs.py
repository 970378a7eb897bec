"""The picture book that Pocket's scenes are cut from: one small image of every object, and the words for each.

`python -m engine.pocket.glyphs` builds `atlas/` anew from Debian's `fonts-noto-color-emoji` (SIL OFL 1.1); that font is
needed for nothing else. `load_atlas()` reads what was built. Bitmaps in the font are 128 px high at Pillow size 109.
"""

import gzip
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

FOLDER = Path(__file__).parent / "atlas"
FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
FONT_COPYRIGHT = Path("/usr/share/doc/fonts-noto-color-emoji/copyright")
CELL = 128  # px: a glyph fills its cell, less one pixel on each side

# Category: glyph and its names. Names after the first are synonyms, drawn alike. One line is one category.
KNOWN = {
    "animal": """🐕 dog|🐈 cat,kitten|🐁 mouse|🐹 hamster|🐇 rabbit,bunny|🐻 bear|🐼 panda|🐨 koala|🐅 tiger|🦁 lion
        |🐄 cow|🐖 pig|🐸 frog|🐒 monkey|🦍 gorilla|🐔 chicken|🐓 rooster|🐥 chick|🐦 bird|🦆 duck|🦅 eagle|🦇 bat
        |🐺 wolf|🐎 horse|🦄 unicorn|🐝 bee|🐛 caterpillar|🦋 butterfly|🐌 snail|🐞 ladybug|🕷 spider|🐢 turtle
        |🐍 snake|🦎 lizard|🦖 dinosaur|🦐 shrimp|🦑 squid|🐠 tropical fish|🐟 fish|🐡 blowfish|🐬 dolphin|🐋 whale
        |🦈 shark|🐊 crocodile|🦓 zebra|🐘 elephant|🦛 hippo|🦏 rhino|🐪 camel|🦒 giraffe|🦘 kangaroo|🐑 sheep|🦙 llama
        |🐐 goat|🦌 deer|🦚 peacock|🦜 parrot|🦢 swan|🕊 dove|🦝 raccoon|🦥 sloth|🐿 squirrel|🦔 hedgehog|🦊 fox
        |🦩 flamingo|🦭 seal""",
    "food": """🍎 apple|🍐 pear|🍊 tangerine|🍋 lemon|🍌 banana|🍉 watermelon|🍇 grapes|🍓 strawberry|🫐 blueberries
        |🍒 cherries|🍑 peach|🥭 mango|🍍 pineapple|🥥 coconut|🥝 kiwi|🍅 tomato|🍆 eggplant|🥑 avocado|🥦 broccoli
        |🥒 cucumber|🌶 chili,chili pepper|🫑 bell pepper|🌽 corn|🥕 carrot|🧄 garlic|🧅 onion|🥔 potato|🥐 croissant
        |🥯 bagel|🍞 bread,toast|🥖 baguette|🥨 pretzel|🧀 cheese|🥚 egg|🍳 fried egg|🥞 pancakes|🧇 waffle|🥓 bacon
        |🥩 steak|🍗 chicken leg|🌭 hot dog|🍔 burger,hamburger|🍟 fries|🍕 pizza|🥪 sandwich|🌮 taco|🌯 burrito
        |🥗 salad|🍝 spaghetti,pasta|🍜 noodles,ramen|🍲 soup|🍛 curry|🍣 sushi|🍚 rice|🥟 dumpling|🍦 ice cream cone
        |🍨 ice cream|🥧 pie|🧁 cupcake|🎂 birthday cake|🍰 cake|🍮 pudding|🍭 lollipop|🍬 candy|🍫 chocolate
        |🍿 popcorn|🍩 donut,doughnut|🍪 cookie|🥜 peanuts|🍯 honey""",
    "drink": """🥛 milk|🍼 baby bottle|☕ coffee,cup,mug|🍵 tea|🍾 champagne,bottle|🍷 wine,wine glass|🍸 cocktail
        |🍺 beer|🥤 soda,paper cup|🧃 juice box|🧋 bubble tea|🥃 whisky""",
    "plant": """🌵 cactus|🎄 christmas tree|🌲 pine tree|🌳 tree|🌴 palm tree|🍀 clover,four leaf clover
        |🍁 maple leaf|🍄 mushroom|💐 bouquet,flowers|🌷 tulip|🌹 rose|🌺 hibiscus|🌸 cherry blossom|🌼 daisy,flower
        |🌻 sunflower|🪴 potted plant,houseplant|🪷 lotus""",
    "vehicle": """🚗 car|🚕 taxi|🚙 jeep|🚌 bus|🏎 racing car|🚑 ambulance|🚒 fire truck|🛻 pickup truck|🚚 truck
        |🚜 tractor|🛴 scooter|🚲 bicycle,bike|🛵 moped|🏍 motorcycle,motorbike|🚆 train|🚋 tram|🚁 helicopter
        |✈ airplane,plane|🚀 rocket|⛵ sailboat|🚤 speedboat|🚢 ship|🛶 canoe|🛹 skateboard|🚅 bullet train
        |🛰 satellite""",
    "building": """🏠 house|🏡 cottage|🏢 office building|🏪 shop|🏫 school|🏭 factory|🏰 castle|🏯 pagoda|⛪ church
        |🗼 tower|⛲ fountain|⛺ tent|🎡 ferris wheel|🛖 hut|🏛 temple|🎠 carousel|🎢 roller coaster|⛽ gas pump""",
    "clothing": """👓 glasses|🕶 sunglasses|👔 tie|👕 shirt|👖 jeans,pants|🧣 scarf|🧤 gloves|🧥 coat,jacket|🧦 socks
        |👗 dress|👘 kimono|🩳 shorts|👛 purse|🎓 graduation cap|🛍 shopping bag|👝 pouch,bag|🩰 ballet shoes
        |👟 sneaker,shoe|👠 high heel|👡 sandal|👢 boot|👞 leather shoe|👑 crown|👒 sun hat,hat|🎩 top hat|🧢 cap
        |⛑ helmet|💍 ring""",
    "product": """💄 lipstick|💎 gem,diamond|⌚ watch|📱 phone,smartphone|💻 laptop|⌨ keyboard|🖥 monitor,computer
        |🖨 printer|🖱 computer mouse|💿 disc|📷 camera|📹 video camera|📺 television,tv|📻 radio|🎙 microphone
        |⏰ alarm clock|🕰 clock|⌛ hourglass|🔋 battery|🔌 plug|💡 light bulb|🔦 flashlight|🕯 candle
        |🧯 fire extinguisher|🪙 coin|💰 money bag|💳 credit card|📖 book|📚 books|📓 notebook|🎁 gift,present
        |🎈 balloon|🎀 bow,ribbon|📦 box,package|✉ envelope,letter|📫 mailbox|🖊 pen|✏ pencil|🖌 paintbrush
        |🖍 crayon|📎 paperclip|✂ scissors|🔒 lock,padlock|🔑 key|🎧 headphones|☎ telephone|🧸 teddy bear|🪑 chair
        |🛏 bed|🛋 sofa,couch|🪞 mirror|🛁 bathtub|🧼 soap|🪥 toothbrush|🧺 basket|🪣 bucket|🛒 shopping cart|💊 pill
        |☂ umbrella|🧳 suitcase|💼 briefcase|🏺 vase|🖼 picture frame|🎮 game controller|🕹 joystick
        |🧩 puzzle piece|🪅 pinata|🏮 lantern|🔮 crystal ball|🍽 plate|🥄 spoon|🔪 kitchen knife|🥢 chopsticks
        |🧂 salt shaker|🪵 log|🪨 rock,stone|🪶 feather|🐚 shell,seashell|🦴 bone|🦷 tooth|🗺 map|🧭 compass
        |🌡 thermometer|🔭 telescope|🔬 microscope|🧪 test tube""",
    "tool": """🔨 hammer|🪓 axe|⛏ pickaxe|⚔ swords,crossed swords|🛡 shield|🔧 wrench|🪛 screwdriver|⚙ gear
        |🧲 magnet|🪜 ladder|🪚 saw|🧹 broom|⚓ anchor|💣 bomb|⚖ scales|🧱 bricks,brick|🏹 bow and arrow|🪃 boomerang
        |🔍 magnifying glass|📣 megaphone|🔔 bell""",
    "instrument": """🎸 guitar|🎹 piano|🥁 drum|🎷 saxophone|🎺 trumpet|🎻 violin|🪕 banjo|🪗 accordion""",
    "sport": """⚽ soccer ball,football|🏀 basketball|🏈 american football|⚾ baseball
        |🎾 tennis ball,tennis racket|🏐 volleyball|🏉 rugby ball|🎱 pool ball|🏓 ping pong paddle|🏒 hockey stick
        |🥊 boxing glove|⛸ ice skate|🎣 fishing rod|🎿 skis|🛷 sled|🎯 target,dartboard|🪁 kite|🎳 bowling|🏆 trophy
        |🥇 medal|🪀 yoyo""",
    "sky": """☀ sun|🌙 moon,crescent|⭐ star|☁ cloud|🌧 rain cloud|🌈 rainbow|❄ snowflake|⛄ snowman|🔥 fire,flame
        |🌊 wave|🌍 globe,earth|🪐 planet,saturn|🌋 volcano|🏔 mountain|⚡ lightning|🌪 tornado|🏝 island""",
    "face": """😀 smiley,happy face|😎 cool face|😍 heart eyes|😢 crying face|😡 angry face|😴 sleeping face
        |🤡 clown|👽 alien|💀 skull|🎃 pumpkin|🎅 santa""",
    "thing": """❤ heart|👍 thumbs up|🧠 brain|🎨 palette|🗿 stone head|🪄 magic wand|🎆 fireworks""",
}

# Whole subjects that base training never sees, so that a LoRA can be seen to add them.
HELD_OUT = {
    "character": """🦀 crab|🐙 octopus|🦉 owl|🤖 robot|🐉 dragon|👻 ghost|🐧 penguin|🦞 lobster|🦫 beaver
        |👾 space monster|🦣 mammoth|👹 ogre|🦤 dodo""",
    "goods": """🫖 teapot|👜 handbag|🎒 backpack|🪔 oil lamp|🧴 lotion bottle|🛼 roller skate|🥾 hiking boot|🫙 jar
        |⏲ kitchen timer|🍱 lunch box|🥡 takeaway box|🛸 flying saucer|🪆 nesting doll|🥫 tin can""",
}


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
    """Read `atlas/`: needs no font."""
    entries = json.loads((FOLDER / "glyphs.json").read_text())
    with Image.open(FOLDER / "atlas.webp") as sheet:
        pixels = torch.from_numpy(np.asarray(sheet.convert("RGBA")).copy())
    rows, columns = pixels.shape[0] // CELL, pixels.shape[1] // CELL
    cells = pixels.view(rows, CELL, columns, CELL, 4).permute(0, 2, 4, 1, 3).reshape(-1, 4, CELL, CELL)
    return Atlas(
        pictures=cells.contiguous(),
        cell={noun: entry["cell"] for noun, entry in entries.items()},
        category={noun: entry["category"] for noun, entry in entries.items()},
        held_out=tuple(noun for noun, entry in entries.items() if entry["held_out"]),
    )


def draw_glyph(glyph: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    """One glyph, cropped to its ink and centred in a CELL × CELL transparent square."""
    canvas = Image.new("RGBA", (160, 160))
    ImageDraw.Draw(canvas).text((12, 12), glyph, font=font, embedded_color=True)
    ink = canvas.crop(canvas.getbbox())
    scale = (CELL - 2) / max(ink.size)
    ink = ink.resize((max(1, round(ink.width * scale)), max(1, round(ink.height * scale))), Image.Resampling.LANCZOS)
    cell = Image.new("RGBA", (CELL, CELL))
    cell.paste(ink, ((CELL - ink.width) // 2, (CELL - ink.height) // 2))
    return cell


def parse(table: dict[str, str], held_out: bool) -> list[tuple[str, str, str, bool]]:
    """Rows (glyph, comma-separated names, category, held out) of KNOWN or HELD_OUT."""
    rows: list[tuple[str, str, str, bool]] = []
    for category, text in table.items():
        for item in text.split("|"):
            glyph, names = item.strip().split(" ", 1)
            rows.append((glyph, names, category, held_out))
    return rows


def build() -> None:
    """Draw every glyph into `atlas/atlas.webp`, and write `glyphs.json` and the font's licence beside it."""
    FOLDER.mkdir(exist_ok=True)
    rows = parse(KNOWN, False) + parse(HELD_OUT, True)
    columns = 24
    sheet = Image.new("RGBA", (columns * CELL, math.ceil(len(rows) / columns) * CELL))
    font = ImageFont.truetype(FONT, 109)
    entries: dict[str, dict[str, str | int | bool]] = {}
    for cell, (glyph, names, category, held_out) in enumerate(rows):
        sheet.paste(draw_glyph(glyph, font), (cell % columns * CELL, cell // columns * CELL))
        for name in names.split(","):
            entries[name] = {"cell": cell, "category": category, "held_out": held_out}
    sheet.save(FOLDER / "atlas.webp", quality=92, method=6)
    (FOLDER / "glyphs.json").write_text(json.dumps(entries, indent=0) + "\n")
    (FOLDER / "OFL.txt").write_text(licence())


def licence() -> str:
    """The font's copyright lines and the SIL Open Font Licence, from the Debian package's copyright file."""
    raw = FONT_COPYRIGHT.read_bytes()
    text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode()
    body = text.split("License:   SIL-1.1")[-1]
    lines = ["" if line.strip() == "." else line.removeprefix(" ") for line in body.strip("\n").splitlines()]
    notice = "Copyright 2013-2017 Google Inc., Arjen Nienhuis <a.g.nienhuis@gmail.com>"
    source = "The pictures in atlas.webp are cut from Noto Color Emoji, https://github.com/googlefonts/noto-emoji"
    return f"{source}\n{notice}\n\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    build()
