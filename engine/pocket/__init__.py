"""How the embedded base model is made, from picture book to trained weights. Nothing outside this folder imports it."""
