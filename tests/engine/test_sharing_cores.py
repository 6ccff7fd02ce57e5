"""Turns at the machine: one at a time, and as much time for each who wants it."""

from __future__ import annotations

import threading
import time

from tinker_local.engine.sharing import Cores, Share


def use(cores: Cores, share: Share, seconds: float, n: int, log: list[Share]) -> None:
    for _ in range(n):
        cores.take(share)
        log.append(share)
        time.sleep(seconds)
    cores.leave(share)


def run(cores: Cores, jobs: list[tuple[Share, float, int]]) -> list[Share]:
    log: list[Share] = []
    threads = [threading.Thread(target=use, args=(cores, *job, log)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return log


def test_one_at_a_time() -> None:
    cores, inside, most = Cores(), [0], [0]

    def count(share: Share) -> None:
        for _ in range(50):
            cores.take(share)
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.0001)
            inside[0] -= 1
        cores.leave(share)

    threads = [threading.Thread(target=count, args=(Share(),)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def test_short_steps_get_more_turns_than_long_ones() -> None:
    cores, short, long = Cores(), Share(), Share()
    log = run(cores, [(short, 0.002, 200), (long, 0.02, 10)])
    until_long_ended = log[: len(log) - log[::-1].index(long)]
    assert until_long_ended.count(short) > 30, "ten turns of 20 ms are worth a hundred of 2 ms"


def test_idle_time_is_not_saved_up() -> None:
    cores, worker, newcomer = Cores(), Share(), Share()
    run(cores, [(worker, 0.002, 50)])
    log = run(cores, [(worker, 0.002, 20), (newcomer, 0.002, 20)])
    assert log[:20].count(worker) > 4


def test_a_day_of_work_is_not_held_against_anybody() -> None:
    cores, veteran, newcomer = Cores(), Share(), Share()
    run(cores, [(veteran, 0.005, 40)])
    log: list[Share] = []
    threads = [
        threading.Thread(target=use, args=(cores, share, 0.002, 40, log)) for share in (newcomer, veteran)
    ]
    for thread in threads:
        thread.start()
        time.sleep(0.01)  # the newcomer finds the machine free
    for thread in threads:
        thread.join()
    assert log[:50].count(veteran) > 10
