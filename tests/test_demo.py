"""The main job, small: killed in the middle and started again, it ends with the same numbers."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stepsize import Plan, load

ROOT = Path(__file__).parents[1]
SMALL = ["--epochs", "6", "--seeds", "1", "--only", "constant", "cosine", "one-cycle"]


def start(out):
    command = [sys.executable, "examples/digits.py", *SMALL, "--out", str(out)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # noqa: S603 (our own script)


def finished(out) -> tuple[str, dict[str, bytes]]:
    job = start(out)
    text = job.communicate(timeout=300)[0].decode()
    assert job.returncode == 0, text
    folder = out / "6-epochs"
    return text, {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.json")}


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_with_the_same_numbers(tmp_path):
    text, straight = finished(tmp_path / "straight")
    assert "best" in text
    assert (tmp_path / "straight/6-epochs/digits.png").stat().st_size > 10_000
    killed = tmp_path / "killed"
    for wanted in ("constant/0.pt", "cosine/0.pt"):  # once in the first run, once in the second
        job = start(killed)
        while not (killed / "6-epochs" / wanted).exists():
            assert job.poll() is None
            time.sleep(0.005)
        os.kill(job.pid, signal.SIGKILL)
        job.communicate()
    assert not (killed / "6-epochs/summary.json").exists()
    _, resumed = finished(killed)
    assert resumed == straight
    rows = json.loads(resumed["summary.json"])
    assert set(rows) == {"constant", "cosine", "one-cycle"}
    assert isinstance(load(killed / "6-epochs/best.json"), Plan)


@pytest.mark.slow
def test_the_demo_says_what_it_does_not_know():
    command = [sys.executable, "examples/digits.py", "--only", "magic"]
    job = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603 (our own script)
    assert job.returncode == 2
    assert "invalid choice: 'magic'" in job.stderr
