"""How good a picture or a LoRA is: metrics, and the judge that they ask."""
