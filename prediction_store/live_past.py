"""The live facts about items as they were: what an answer that was given is made again by."""

from __future__ import annotations

from prediction_store.live_items import LiveItems
from prediction_store.live_view import LiveView
from prediction_store.version import Version


class LivePast:
    """The live facts about the items of one version after any of the changes that are remembered.

    Cheapest from the latest change back to the earliest: then each is looked at once.

    Requires: the version stays open.
    """

    def __init__(self, live: LiveItems, version: Version) -> None:
        self._live = live
        self._version = version
        self._view: LiveView | None = None

    def after(self, number: int) -> LiveView | None:
        """The facts after the change of that number, 0: before the first; None: that is not remembered.

        The view changes with the next call. Facts that are damaged are not in it, and no reason to stop.

        Raises:
            LiveItemsError, NewerFormatError: as `LiveItems.read`.
        """
        if number == 0:
            return LiveView(self._version)
        if self._view is None or self._view.number < number:
            reading = self._live.read()
            self._view = LiveView(self._version)
            self._view.put(self._version, reading.entries)
            self._view.number = reading.number
        if number > self._view.number:
            return None
        if number < self._view.number:
            before = self._live.read_back(self._view.number, number)
            if before is None:
                return None
            self._view.put(self._version, before)
            self._view.number = number
        return self._view
