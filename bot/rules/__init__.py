"""The parts of the rules: each reads one thing in a sentence. `bot.interpreter` puts them together."""
