"""The bot: what people talk to. It plans; the engine below it draws and trains."""
