"""Fixtures that need the engine: tiny bases of the real architectures, loaded once for all tests."""

import signal
from pathlib import Path

import pytest
import torch

from engine import bases
from engine.catalog import Catalog
from engine.diffusion.resident import Resident
from engine.runners import Runners
from tests.engine.studio import Bench
from tests.tiny import tiny_sd, tiny_sdxl

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores Ctrl-C for what it runs in the background
torch.set_num_threads(1)  # these models are too small to share out: threads would wait for one another

FAMILIES = ("tiny-sd", "tiny-v", "tiny-sdxl")


@pytest.fixture(scope="session")
def tiny_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    tiny_sd(home)
    tiny_sd(home, "v_prediction", "tiny-v")
    tiny_sdxl(home)
    return home


@pytest.fixture(params=FAMILIES)
def base_name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def resident(tiny_home: Path, base_name: str) -> Resident:
    return Resident(bases.find(base_name, tiny_home), torch.device("cpu"), torch.float32)


@pytest.fixture
def catalog(tiny_home: Path, tmp_path: Path) -> Catalog:
    return Catalog(tmp_path / "shipped", tmp_path / "loras")


@pytest.fixture
def runners(catalog: Catalog, tiny_home: Path) -> Runners:
    return Runners(catalog, tiny_home, torch.device("cpu"))


@pytest.fixture
def bench(resident: Resident) -> Bench:
    return Bench(resident)
