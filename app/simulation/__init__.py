"""The same ServerApp and ClientApp in one process tree: `LocalGrid`.

::

    ServerApp process                starter (imports once, forks)
      grid.py   what Flower sees       starter.py
      pool.py   worker processes  ──►  worker.py × workers, one client at a time
                     └── shared memory: models go both ways, large ones without a copy
                     └── channel.py: small JSON headers through sockets

Nothing is pickled: what Flower knows how to write is written with Flower's own protobufs, models move as
float32 buffers.
"""

from app.simulation.grid import LocalGrid

__all__ = ["LocalGrid"]
