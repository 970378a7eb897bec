"""The only reader of the environment."""

import os
from pathlib import Path

from pydantic import field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from engine.errors import Invalid

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "YES",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


class Settings(BaseSettings):
    """`ATELIER_HOME` is the one folder that is written to; `ATELIER_BASE` the base drawn on when none is named."""

    model_config = SettingsConfigDict(env_prefix="ATELIER_", env_ignore_empty=True, extra="ignore", frozen=True)

    home: Path = Path("~/.atelier")
    base: str = "pocket"

    @field_validator("home")
    @classmethod
    def _whole(cls, home: Path) -> Path:
        try:
            return home.expanduser().absolute()
        except RuntimeError:
            raise Invalid("home", f"there is no user as in {home}", "Name a folder: --home DIR.") from None


def stay_offline() -> None:
    """Tell the model libraries never to call home. They read this once, so it comes before they are imported."""
    os.environ.update(OFFLINE)
