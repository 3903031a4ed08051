"""Who may enter a room: its seats and its trainer, with the passwords of their cards.

JupyterHub's own authenticators have one password for all, or those of the machine's accounts; with
NativeAuthenticator people sign up themselves.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from typing import Any

from jupyterhub.auth import Authenticator, LocalAuthenticator
from traitlets import Callable

from rfe_helpers.room import passwords
from rfe_helpers.room.settings import TRAINER

LONGEST_WAIT = 30.0  # seconds before the answer to a wrong password
_AT_ONCE = 3  # attempts for one name from one address; more are refused
_AT_ONCE_FOR_ONE = 20  # attempts for one name from anywhere
_REMEMBERED = 10_000


class SeatAuthenticator(LocalAuthenticator):  # type: ignore[misc]  # jupyterhub has no types
    """Takes the passwords whose hashes `hashes()` returns, name -> hash, as they are now.

    After a wrong one, each answer to the same name from the same address takes twice as long as the
    one before, LONGEST_WAIT at most.
    """

    hashes = Callable(config=True, help="name -> hash of its password (passwords.hash_of)")

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._failures: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()
        self._waiting: dict[tuple[str, str], int] = {}
        self._hashing = asyncio.Semaphore(2)

    async def authenticate(self, handler: Any, data: dict[str, str]) -> str | None:
        name = str(data.get("username", "")).strip().lower()[:64]
        # The last address is the one that the proxy saw; whoever asks writes those before it.
        address = handler.request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()
        who = (name, address)
        of_name = sum(count for (other, _), count in self._waiting.items() if other == name)
        if self._waiting.get(who, 0) >= _AT_ONCE or of_name >= _AT_ONCE_FOR_ONE:
            return None
        self._waiting[who] = self._waiting.get(who, 0) + 1
        try:
            await asyncio.sleep(self._wait(who))
            # A name that does not exist takes as long as one that does.
            known = self.hashes().get(name)
            async with self._hashing:
                fits = await asyncio.to_thread(
                    passwords.matches, str(data.get("password", "")), known or "00:00"
                )
        finally:
            self._waiting[who] -= 1
            if not self._waiting[who]:
                del self._waiting[who]
        if known is not None and fits:
            self._failures.pop(who, None)
            return name
        count, _ = self._failures.pop(who, (0, 0.0))
        self._failures[who] = (count + 1, time.monotonic())
        while len(self._failures) > _REMEMBERED:
            self._failures.popitem(last=False)
        return None

    async def add_user(self, user: Any) -> None:
        """Called for each user of the hub; the trainer needs no account of the machine."""
        if self.create_system_users and user.name != TRAINER:
            await super().add_user(user)
        else:
            Authenticator.add_user(self, user)

    def delete_user(self, user: Any) -> None:
        """Called when the hub forgets a user, as after a reset: the seat is still allowed in."""

    def _wait(self, who: tuple[str, str]) -> float:
        """Seconds until an attempt is looked at: less, the longer ago the last wrong one is."""
        count, at = self._failures.get(who, (0, 0.0))
        wait = min(LONGEST_WAIT, 0.5 * 2 ** min(count, 10)) if count else 0.0
        return max(0.0, wait - (time.monotonic() - at))
