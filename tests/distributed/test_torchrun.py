"""torchrun: killed and restarted, or continued on other numbers of ranks: the same rates."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.distributed import train

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
LIMIT = 150.0  # seconds; it takes ten where nothing else runs
WHOLE, STOPPED, EVERY = 8192, 3072, 1024  # tokens


def torchrun(folder, ranks, **given):
    """Run the training under torchrun; give what each rank found."""
    config = folder / "config.json"
    config.write_text(json.dumps({"folder": str(folder), "every": EVERY, **given}))
    alone = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}  # the agent's store outlives a restart
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--max-restarts=1"]
    command += [f"--nproc-per-node={ranks}", str(HERE / "train.py"), str(config)]
    with (folder / "output.txt").open("w+") as output:
        launcher = subprocess.Popen(  # noqa: S603 (our own script)
            command,
            env={**os.environ, **alone, "OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = launcher.wait(LIMIT)
        finally:  # its ranks end when it does
            launcher.kill()
            launcher.wait()
        output.seek(0)
        assert code == 0, output.read()[-4000:]
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(ranks)]


def used(folder):
    """What was used at each position, and how often training was there."""
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    last = {row["tokens"]: row for row in rows}
    return [last[tokens] for tokens in sorted(last)], len(rows) - len(last)


@pytest.fixture
def folders(tmp_path):
    """Give a new folder by its name."""

    def make(name):
        (tmp_path / name).mkdir()
        return tmp_path / name

    return make


@pytest.mark.parametrize(
    ("kill", "again"),
    [
        ({"rank": 1, "tokens": 3392, "where": "training"}, 5),
        ({"rank": 0, "tokens": 5120, "where": "saving"}, 16),
    ],
    ids=["a_rank_dies_in_training", "rank_0_dies_while_it_saves"],
)
def test_killed_and_restarted_it_is_the_run_that_never_stopped(world_of, folders, kill, again):
    straight = folders("straight")
    given = {"until": WHOLE, "guard": True}
    want = world_of(2).run(train.trained, folder=str(straight), every=EVERY, **given)
    killed = folders("killed")
    found = torchrun(killed, 2, kill=kill, **given)
    rows, repeated = used(killed)
    assert repeated == again  # the steps since the last checkpoint
    assert rows == used(straight)[0]
    assert len(rows) == WHOLE // 64
    for rank in range(2):
        assert found[rank]["weights"] == want[rank]["weights"]
        assert found[rank]["state"] == want[0]["state"]
    assert [edit["kind"] for edit in found[0]["journal"]] == ["extend", "cool_down"]
    factors = json.loads(found[0]["state"]["details"])["controlled"]["history"]
    assert {why.partition(":")[0] for _, _, _, why, _ in factors} == {"plateau", "spike_guard"}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The folder of a run that has stopped on four ranks."""
    folder = tmp_path_factory.mktemp("stopped")
    torchrun(folder, 4, until=STOPPED)
    return folder


@pytest.mark.parametrize("accumulate", [2, 1], ids=["same_global_batch", "half_the_global_batch"])
def test_stopped_on_four_ranks_it_goes_on_by_tokens_on_two(
    world_of, folders, stopped, tmp_path, accumulate
):
    moved = Path(shutil.copytree(stopped, tmp_path / "moved"))
    found = torchrun(moved, 2, until=WHOLE, accumulate=accumulate)
    straight = str(folders("straight"))
    want = world_of(4).run(train.trained, folder=straight, every=EVERY, until=WHOLE)
    rates = {row["tokens"]: row["rate"] for row in used(moved)[0]}
    expected = {row["tokens"]: row["rate"] for row in want[0]["rows"]}
    assert len(expected) == WHOLE // 128
    if accumulate == 2:
        assert rates == expected
        assert found[0]["state"] == want[0]["state"]
        return
    assert len(rates) == STOPPED // 128 + (WHOLE - STOPPED) // 64
    assert {tokens: rates[tokens] for tokens in expected} == pytest.approx(expected, rel=1e-13)
    for tokens in set(rates) - set(expected):  # between two of the run that never stopped
        before, after = expected[tokens - 64], expected.get(tokens + 64, 0.0)
        assert min(before, after) <= rates[tokens] <= max(before, after)
