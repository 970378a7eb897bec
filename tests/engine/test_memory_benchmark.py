"""The benchmark of memory modes runs, on tiny networks of each real architecture."""

import pytest

from benchmarks import memory


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("base", ["sdxl", "klein", "flux"])
def test_every_way_prints_a_row_and_our_exact_modes_agree(
    base: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["memory", "--tiny", "--only", base])
    memory.main()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()[3:]]
    assert [row[2] for row in rows] == [*memory.MODES, *memory.WAYS]
    apart = {row[2]: float(row[7]) for row in rows[:4]}
    assert apart["full"] == apart["pinned"] == apart["offload"] == 0
    assert 0 < apart["small"] < 0.1
    assert [row[8] for row in rows[:4]] == ["yes, 50 cycles"] * 4


@pytest.mark.filterwarnings("ignore")
def test_without_time_no_row_is_begun_and_each_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["memory", "--tiny", "--only", "flux", "--minutes", "0"])
    memory.main()
    assert capsys.readouterr().out.count("no time is left") == len(memory.MODES) + len(memory.WAYS)
