"""Pictures: loaded bases, LoRA stacks written into their weights, and the loop that draws."""
