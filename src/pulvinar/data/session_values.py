"""Responses that stay in the files of their sessions: an array (trial, voxel) that reads a session when one of its trials is
asked for, and keeps the last ones in memory.

Files whose chunks hold one voxel and all trials (NSD) cannot be read trial by trial; whole sessions are the unit.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from pulvinar.core import memory
from pulvinar.core.errors import InputError

ReadSession = Callable[[int], np.ndarray]


class SessionCache:
    """Sessions in memory, up to `limit` bytes in all; the one used longest ago goes first. One for several subjects.

    Fewer where the command may use less memory (`core/memory.py`).
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held: OrderedDict[tuple[str, int], np.ndarray] = OrderedDict()
        self.n_bytes = 0

    def get(self, key: tuple[str, int], read: Callable[[], np.ndarray], *, n_bytes: int = 0) -> np.ndarray:
        """What `read()` gives, from memory if it is still there. n_bytes: of it, as far as they are known before."""
        if key in self.held:
            self.held.move_to_end(key)
            return self.held[key]
        if memory.limit() is not None:
            self._make_room(n_bytes)
            memory.require(2 * n_bytes, f"session {key[1]} of {key[0]}, and what is taken of it,")
        values = read()
        if values.nbytes <= self._make_room(values.nbytes):
            self.held[key], self.n_bytes = values, self.n_bytes + values.nbytes
        return values

    def _make_room(self, n_bytes: int) -> int:
        """Let the oldest go until so many bytes fit; how many may be held."""
        limit = memory.room(self.limit, held=self.n_bytes)
        while self.held and self.n_bytes + n_bytes > limit:
            self.n_bytes -= self.held.popitem(last=False)[1].nbytes
        return limit


class SessionValues:
    """Values (trial, voxel) of one subject, with the indexing that `Responses` needs: `[trials]` and `[trials, voxels]`.

    name: of the subject. read: session -> (trial of the session, voxel). places: session and row in it of every trial,
    (trial, 2), as `trial_places` gives them. trial_numbers: each trial's number over all sessions of the experiment, from 0,
    where all have `trials_per_session`. stream: session -> its trials some at a time, where they can be had so.
    """

    ndim = 2

    def __init__(
        self,
        name: str,
        read: ReadSession,
        places: np.ndarray,
        *,
        n_voxels: int,
        dtype: type,
        cache: SessionCache,
        trials_per_session: int = 0,
        stream: Callable[[int], Iterator[np.ndarray]] | None = None,
    ) -> None:
        self.name, self._read, self._places, self._cache, self._stream = name, read, places, cache, stream
        self.shape = (len(places), n_voxels)
        self.dtype = np.dtype(dtype)
        self.trial_numbers = (places[:, 0] - 1) * trials_per_session + places[:, 1]

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of all values, in memory or not."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    def __getitem__(self, key: Any) -> np.ndarray:
        trials, voxels = key if isinstance(key, tuple) else (key, slice(None))
        rows = np.arange(len(self))[trials]
        single = np.ndim(rows) == 0
        block = self._rows(np.atleast_1d(rows), voxels)
        return block[0] if single else block

    def pieces(self, start: int, end: int) -> Iterator[np.ndarray]:
        """The trials from `start` to before `end` in their order, some at a time; each session is read once."""
        sessions, own = self._places[start:end].T
        session = int(sessions[0])
        if self._stream is None or (sessions != session).any() or not np.array_equal(own, np.arange(len(own))):
            yield self[start:end]
            return
        n_seen = 0
        for values in self._stream(session):
            n_seen += len(values)
            if n_seen > end - start:
                break
            yield self._checked(session, values)
        if n_seen != end - start:
            raise InputError(f"session {session} of {self.name}: {end - start} trials expected, {n_seen} or more are there")

    def _rows(self, rows: np.ndarray, voxels: Any) -> np.ndarray:
        sessions, own = self._places[rows].T
        parts = np.unique(sessions)
        if len(parts) == 1:
            return self._session(int(parts[0]))[own][:, voxels]
        out: np.ndarray | None = None
        for session in parts:
            here = sessions == session
            block = self._session(int(session))[own[here]][:, voxels]
            out = np.empty((len(rows), *block.shape[1:]), self.dtype) if out is None else out
            out[here] = block
        return np.empty((0, self.shape[1]), self.dtype)[:, voxels] if out is None else out

    def _session(self, session: int) -> np.ndarray:
        n_rows = int(self._places[self._places[:, 0] == session, 1].max()) + 1
        n_bytes = n_rows * self.shape[1] * self.dtype.itemsize
        return self._checked(session, self._cache.get((self.name, session), lambda: self._read(session), n_bytes=n_bytes))

    def _checked(self, session: int, values: np.ndarray) -> np.ndarray:
        if values.shape[1] != self.shape[1] or values.dtype != self.dtype:
            raise InputError(
                f"session {session}: (trial, {self.shape[1]}) {self.dtype} expected, {values.shape} {values.dtype}"
            )
        return values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        values = self[:]
        return values if dtype is None else values.astype(dtype)


def trial_places(sessions: Sequence[int], trials_per_session: int) -> np.ndarray:
    """(session, row) of every trial of these sessions, in their order: int64 (trial, 2)."""
    rows = np.tile(np.arange(trials_per_session), len(sessions))
    return np.stack([np.repeat(np.asarray(sessions, np.int64), trials_per_session), rows], axis=1)


class RowsOf:
    """Some rows of an array (trial, voxel), in any order and without a copy, with the indexing that `Responses` needs."""

    ndim = 2

    def __init__(self, values: np.ndarray, rows: np.ndarray) -> None:
        self._values, self._rows = values, np.asarray(rows)
        self.shape, self.dtype = (len(rows), values.shape[1]), values.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        trials, voxels = key if isinstance(key, tuple) else (key, slice(None))
        return np.asarray(self._values[self._rows[trials]][..., voxels])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)
