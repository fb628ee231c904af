"""Memory that several processes map, and large vectors in it.

A file descriptor alone holds it (`memfd_create`, or an unlinked temporary file where that is missing), never
a name: the kernel frees it with the last process that holds it, however that process ended. Named segments
would outlive a killed process, need a tracker that cleans up, and live in ``/dev/shm``, of which a container
has 64 MB.

A large vector lies in such memory from the beginning (`new_vector`). Between processes of one machine its
descriptor is handed over, and no second copy is made.
"""

import mmap
import os
import tempfile
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from strategies.core.errors import LetheError
from strategies.core.layout import is_large

_ALIGNMENT = 64  # Of each vector in a buffer: a cache line, and enough for the widest vector instruction.
_FLOAT_BYTES = 4
_descriptors: dict[int, tuple[int, int]] = {}
"""Of each large vector: its size and descriptor, by the address at which it lies."""


def aligned(offset: int) -> int:
    """Return the first aligned offset from this one on."""
    return -(-offset // _ALIGNMENT) * _ALIGNMENT


class SharedMemory:
    """A growing piece of memory, mapped here and perhaps in other processes.

    It owns its descriptor, made by `SharedMemory.create` in this process or in the one that sent it here.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._mapping: mmap.mmap | None = None
        self._view = memoryview(b"")

    @staticmethod
    def create() -> "SharedMemory":
        """Return a new, empty piece."""
        if hasattr(os, "memfd_create"):
            return SharedMemory(os.memfd_create("lethe", os.MFD_CLOEXEC))
        with tempfile.TemporaryFile() as file:
            return SharedMemory(os.dup(file.fileno()))

    @property
    def size(self) -> int:
        """Bytes mapped here."""
        return len(self._view)

    def view(self, num_bytes: int) -> memoryview:
        """Return a writable view of at least that many bytes, growing the memory for all who map it.

        Views of an earlier, smaller mapping stay valid and show the same memory.

        Raises
        ------
        LetheError
            If the machine has not that much memory left.
        """
        if len(self._view) < num_bytes:
            size = os.fstat(self.descriptor).st_size
            if size < num_bytes:
                _allocate(self.descriptor, size, num_bytes)
            self._mapping = mmap.mmap(self.descriptor, max(size, num_bytes))
            self._view = memoryview(self._mapping)
        return self._view

    def put(self, flat: Tensor, offset: int = 0) -> int:
        """Copy a float32 vector to an aligned offset; return the first byte behind it."""
        end = offset + flat.numel() * _FLOAT_BYTES
        target = np.frombuffer(self.view(end), np.float32, flat.numel(), offset)
        target[:] = flat.numpy()
        return end

    def take(self, size: int, offset: int = 0) -> Tensor:
        """Return a private copy of the float32 vector at an offset, shape [size]."""
        # By numpy: torch copies with all its threads, which then spin on the cores that the workers need.
        source = np.frombuffer(self.view(offset + size * _FLOAT_BYTES), np.float32, size, offset)
        return torch.from_numpy(source.copy())

    def close(self) -> None:
        """Let go of the memory; views that are still around stay valid."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor = -1
        self._view, self._mapping = memoryview(b""), None


def new_vector(size: int) -> Tensor:
    """Return a float32 vector to be filled, shape [size]; the memory of a large one can be handed over.

    Raises
    ------
    LetheError
        If the machine has not that much memory left.
    """
    if not is_large(size):
        return torch.empty(size)
    memory = SharedMemory.create()
    try:
        _allocate(memory.descriptor, 0, size * _FLOAT_BYTES)
        return vector_in(memory.descriptor, size)
    finally:
        memory.close()


def vector_in(descriptor: int, size: int) -> Tensor:
    """Map the float32 vector that lies in a piece of memory, shape [size], size > 0; changes are shared.

    The descriptor stays the caller's. The memory is freed with the last process that maps it.
    """
    mapping = _Mapping(descriptor, size * _FLOAT_BYTES)
    vector = torch.frombuffer(mapping, dtype=torch.float32)
    mapping.address, mapping.descriptor = vector.data_ptr(), os.dup(descriptor)
    _descriptors[mapping.address] = size, mapping.descriptor
    return vector


class _Mapping(mmap.mmap):
    """The memory of a vector, forgotten before it is unmapped: another thread may get its address then."""

    address, descriptor = 0, -1

    def __del__(
        self,
        known: dict[int, tuple[int, int]] = _descriptors,
        close: Callable[[int], None] = os.close,
    ) -> None:
        """Forget the vector; what is called is held here, as the module's names may be gone at the end."""
        if self.descriptor >= 0:
            del known[self.address]
            close(self.descriptor)


def descriptor_of(vector: Tensor) -> int | None:
    """Return the descriptor of the memory that a vector fills, open as long as the vector is there.

    None if it lies elsewhere, or in a part of such memory.
    """
    size, descriptor = _descriptors.get(vector.data_ptr(), (-1, -1))
    return descriptor if vector.numel() == size and vector.is_contiguous() else None


def private_vector(descriptor: int, size: int) -> Tensor:
    """Map a shared float32 vector, shape [size], size > 0, copy-on-write.

    A process that changes it changes only its own pages, so one client can never alter the model that the
    next one gets; and nothing is copied for a client that only reads.
    """
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    mapping = mmap.mmap(descriptor, size * _FLOAT_BYTES, flags=mmap.MAP_PRIVATE, prot=protection)
    return torch.frombuffer(mapping, dtype=torch.float32)


def _allocate(descriptor: int, size: int, num_bytes: int) -> None:
    try:
        if hasattr(os, "posix_fallocate"):
            # Unlike a sparse file, this fails here when memory is short, not with a bus error at the first
            # write.
            os.posix_fallocate(descriptor, size, num_bytes - size)
        else:
            os.ftruncate(descriptor, num_bytes)
    except OSError as error:
        raise LetheError(
            f"no shared memory of {num_bytes / 1e6:.1f} MB could be had: {error.strerror}"
        ) from error
