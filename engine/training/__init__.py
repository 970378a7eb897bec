"""From pictures to a LoRA: DreamBooth's loss on low-rank layers over a frozen base."""
