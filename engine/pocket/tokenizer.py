"""The tokenizer: CLIP's byte-level BPE, trained so that every word of the captions is one token.

A word that no caption has is spelt in letters and pieces, as in any CLIP tokenizer, so any trigger can be written.
"""

# pyright: basic

import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import CLIPTokenizer

from engine.pocket.backdrops import SAID
from engine.pocket.captions import NONCE
from engine.pocket.lexicon import names_of
from engine.pocket.looks import STYLES
from engine.pocket.scenes import BUCKETS, base_menu, captions, sample

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
LENGTH = 77
READ = 24_000  # captions


def caption_words(count: int = READ) -> list[str]:
    """Every word that a caption can have, sorted; fresh random letters are no words."""
    menu, generator, times = base_menu(), torch.Generator().manual_seed(1), Counter[str]()
    for turn in range(0, count, 1000):
        shape = list(BUCKETS)[turn // 1000 % len(BUCKETS)]
        texts = captions(sample(min(1000, count), menu, generator, shape))
        times.update(" ".join(texts).replace(",", " ").split())
    names = [name for noun in menu.nouns for name in names_of()[noun]]
    grounds = [words.replace("{}", " ").replace(",", " ") for said in SAID.values() for words in said]
    sure = " ".join([*names, *NONCE, *grounds, *STYLES]).split()
    return sorted({word for word, often in times.items() if often > 5} | set(sure))


def train_tokenizer(words: list[str]) -> CLIPTokenizer:
    """BPE over the words, until each is one token."""
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(False, False)]
    )
    trainer = trainers.BpeTrainer(vocab_size=8192, min_frequency=1, end_of_word_suffix="</w>", show_progress=False)
    bpe.train_from_iterator(words, trainer)
    merges: list[Any] = [tuple(pair) for pair in read_merges(bpe)]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    symbols = [BOS, EOS, *letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges)]
    vocab = {symbol: index for index, symbol in enumerate(dict.fromkeys(symbols))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=LENGTH)  # pyright: ignore[reportCallIssue]


def read_merges(bpe: Tokenizer) -> list[list[str]]:
    """The learnt pairs, in the order of their learning."""
    pairs = json.loads(bpe.to_str())["model"]["merges"]
    return [pair.split(" ") if isinstance(pair, str) else pair for pair in pairs]


def encode(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """Token ids, (n, LENGTH) int64, padded with the end token."""
    return tokenizer(texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt").input_ids


def build_tokenizer(out: Path, count: int = READ) -> list[str]:
    """Train on the words of `count` captions and save into `out`; returns these words."""
    words = caption_words(count)
    train_tokenizer(words).save_pretrained(out)
    return words


def add_plain_files(folder: Path) -> None:
    """vocab.json and merges.txt beside tokenizer.json: older readers of CLIP tokenizers open only these."""
    bpe = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(bpe["vocab"], ensure_ascii=False) + "\n")
    pairs = (pair if isinstance(pair, str) else " ".join(pair) for pair in bpe["merges"])
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *pairs]) + "\n")
