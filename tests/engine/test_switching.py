"""The benchmark of switching, at toy size: what it compares is the same picture, however it is made."""

import pytest

from benchmarks.switching import exactness, new_bench, recompiled, table


@pytest.mark.filterwarnings("ignore")  # peft's, about adapters that are fused already
def test_every_way_makes_the_same_of_a_stack() -> None:
    rows = {row["way"]: row for row in table(new_bench(tiny=True))}
    stacks = [row for way, row in rows.items() if "hotswap" not in way]
    assert len(stacks) == 5
    assert all(row["relative_l2"] < 1e-5 for row in stacks)
    assert rows["diffusers: hotswap (one LoRA)"]["relative_l2"] > 1e-3  # one LoRA is not the stack: the figure can fail


@pytest.mark.filterwarnings("ignore")
def test_the_rack_leaves_the_base_and_compiled_graphs_alone() -> None:
    found = exactness(new_bench(tiny=True), switches=30, cycles=2)
    assert found["base"]
    assert found["stack"]
    assert recompiled(new_bench(tiny=True), 4, tiny=True) == 0
