"""The harvest's own processes."""

import subprocess
import sys

HARVESTING = """
import multiprocessing, time
from concurrent.futures import ProcessPoolExecutor
from padlite_training.harvest import end_with_parent

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=end_with_parent) as pool:
        pool.submit(print, "working", flush=True).result()
        pool.submit(time.sleep, 600).result()
"""


def test_a_process_that_harvests_ends_when_the_build_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", HARVESTING], stdout=subprocess.PIPE, text=True) as build:
        assert build.stdout is not None
        assert build.stdout.readline() == "working\n"
        build.kill()
        build.communicate(timeout=60)  # the pipe stays open as long as the child that shares it
