"""Vectors in memory that can be handed over: nothing is copied, and it is freed with the last who has it."""

import gc
import os
import threading

import pytest
import torch

from strategies.core import shared_memory
from strategies.core.layout import LARGE_BYTES, Layout
from strategies.core.shared_memory import descriptor_of, new_vector, vector_in

LARGE = LARGE_BYTES // 4


def test_a_large_vector_can_be_handed_over_and_a_small_one_cannot() -> None:
    assert descriptor_of(new_vector(LARGE - 1)) is None
    vector = new_vector(LARGE).fill_(1.0)
    descriptor = descriptor_of(vector)
    assert descriptor is not None
    assert descriptor_of(vector[:5]) is None
    theirs = vector_in(descriptor, LARGE)
    theirs[3] = 7.0
    assert vector[3] == 7.0


def test_its_memory_is_freed_with_the_last_view() -> None:
    """Without the garbage collector: the descriptor is closed, and the address forgotten."""
    gc.disable()
    try:
        before = len(shared_memory._descriptors)
        vector = new_vector(LARGE)
        descriptor, view = descriptor_of(vector), vector[2:4]
        assert descriptor is not None
        del vector
        os.fstat(descriptor)
        del view
        assert len(shared_memory._descriptors) == before
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
    finally:
        gc.enable()


def test_a_state_in_one_piece_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strategies.core.layout.LARGE_BYTES", 4)
    layout = Layout(("a", "b"), ((2, 2), (3,)))
    flat = torch.arange(7.0)
    state = layout.unflatten(flat)
    assert layout.vector_of(state).data_ptr() == flat.data_ptr()
    assert layout.flatten(state).data_ptr() != flat.data_ptr()
    apart = {"a": state["a"], "b": state["b"].clone()}
    swapped = Layout(("b", "a"), ((3,), (2, 2)))
    assert layout.vector_of(apart).tolist() == layout.flatten(apart).tolist() == flat.tolist()
    assert swapped.vector_of(state).tolist() == [4.0, 5.0, 6.0, 0.0, 1.0, 2.0, 3.0]


def test_a_vector_is_forgotten_before_another_thread_gets_its_address() -> None:
    """Unmapping lets other threads run, which may then map memory of their own at the same place."""
    kept = new_vector(LARGE)
    memory = descriptor_of(kept)
    assert memory is not None
    wrong: list[str] = []

    def map_and_unmap() -> None:
        for _ in range(400):
            vector = vector_in(memory, LARGE)
            if descriptor_of(vector) is None:
                wrong.append("forgotten while it is there")
            del vector

    threads = [threading.Thread(target=map_and_unmap) for _ in range(4)]
    before = len(shared_memory._descriptors)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(shared_memory._descriptors) == before
