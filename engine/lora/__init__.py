"""LoRA files: reading every dialect strictly, and writing one that every reader takes."""
