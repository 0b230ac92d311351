"""How exceptions reach the To-Do agent: an agent that raises them writes those that people must act on to its inbox as well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from streams.runtime.fold import Fold, Message, Output, Result
from streams.runtime.state import State

INBOX: Final = "todo.inbox"
WHOLE: Final = 0  # the one partition that is used: what is grouped, assigned and counted must meet
Wants = Callable[[str, str], bool]


class Fed:
    """A fold whose exceptions are told to the To-Do agent too. ``wants(rule, severity)`` says which raise a To-Do."""

    def __init__(self, fold: Fold, wants: Wants) -> None:
        self.fold, self.wants = fold, wants
        self.state: State = fold.state
        self._known: dict[tuple[str, str], bool] = {}

    def apply(self, message: Message) -> Result:
        """Folds a message in, and tells of the exceptions it led to."""
        result = self.fold.apply(message)
        found = [output for output in result.outputs if output.type == "VeeException" and self._wanted(output.body)]
        result.outputs += [Output(INBOX, output.type, output.body, output.key, WHOLE) for output in found]
        return result

    def _wanted(self, body: dict[str, str]) -> bool:
        key = (body["rule"], body["severity"])
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self.wants(*key)
        return known
