"""The engine: plans in, pictures and LoRAs out. It never imports `bot`."""
