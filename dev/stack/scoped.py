"""What starts and stops, as a `with` block: also a start that fails is stopped."""

from __future__ import annotations

from types import TracebackType
from typing import Self


class Scoped:
    """`start` when entered, `stop` when left, whatever happens in between."""

    def start(self) -> Self:
        """Start, and return when it can be used."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop; no error when it was never started."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
