"""Work beside the caller is bounded, and its errors are not lost."""

import threading

import pytest

from strategies.log.background import Background


def test_at_most_two_tasks_exist_at_a_time() -> None:
    """With the threads held up, the third task is not even accepted."""
    background, gate, started = Background(), threading.Event(), []
    futures = [background.submit(gate.wait) for _ in range(2)]
    third = threading.Thread(target=lambda: started.append(background.submit(int)))
    third.start()
    third.join(0.2)
    assert (started, [f.done() for f in futures]) == ([], [False, False])
    gate.set()
    third.join()
    assert len(started) == 1
    background.close()


def test_results_and_errors_come_back() -> None:
    background = Background()
    future = background.submit(divmod, 7, 2)
    background.finish()
    assert future.result() == (3, 1)
    background.submit(divmod, 1, 0)
    with pytest.raises(ZeroDivisionError):
        background.finish()
    background.submit(divmod, 1, 0)
    background.submit(int)
    with pytest.raises(ZeroDivisionError):  # The third waits for the first
        background.submit(int)
    background.close()


def test_dropped_tasks_are_waited_for_and_their_errors_are_not_raised() -> None:
    background = Background()
    future = background.submit(divmod, 1, 0)
    background.drop()
    assert future.done()
    background.finish()
    background.close()
