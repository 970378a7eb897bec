"""Where people write to us: one file each, which translates to and from `bot.message` and knows nothing else."""
