"""The benchmark of generators: what it prints about simulated devices can be true."""

from __future__ import annotations

from benchmarks.generators import spread_over


def test_ten_samples_on_eight_simulated_devices_use_all_eight() -> None:
    devices, seconds = spread_over(8, 10, fixed=0.3, each=0.0)
    passes = list(devices.passes.values())
    assert len(passes) == 8 and sum(map(sum, passes)) == 10 and seconds > 0.3
    assert all(len(sizes) == 1 for sizes in passes), "each device worked once"
