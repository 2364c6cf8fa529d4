"""A few kills at random moments; bench.kills makes a hundred."""

import os
import subprocess
import sys

import pytest


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and signals")
def test_killed_anywhere_and_gone_on_is_the_same_and_leaves_nothing(root):
    command = [sys.executable, str(root / "run.py"), "do", "bench.kills", "--kills", "6", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"CIL_INSIDE": "1", "OMP_NUM_THREADS": "1"}, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    assert [row[0] for row in rows] == ["estimate", "prepare", "train"] and sum(int(row[2]) for row in rows) == 6
    for name, _, _kills, results, same, _, left in rows:
        assert int(results) >= 1 and same == results and left == "0", name
