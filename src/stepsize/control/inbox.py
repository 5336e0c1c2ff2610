"""What a run does about the requests in its folder: each once, whatever happens."""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from stepsize.control.mailbox import Answer, Data, Mailbox, UnfinishedError, read_edit
from stepsize.edits.kinds import WHERE, Edit
from stepsize.errors import SpecError, StepsizeError

_TAG = re.compile(r"\[request (\w[\w.-]*)\]$", re.ASCII)


class Order(NamedTuple):
    """An edit that is to be carried out, at a step or later; 0: it is new."""

    name: str
    edit: Edit
    step: int = 0


def tagged(edit: Edit, name: str) -> Edit:
    """Give an edit whose remark in the journal names its request."""
    return dataclasses.replace(edit, why=f"{edit.why} [request {name}]".lstrip())


def requested(journal: Iterable[Mapping[str, Any]]) -> dict[str, Data]:
    """Give the entries of a journal that were requested, by the requests' names."""
    found = ((_TAG.search(str(record.get("why", ""))), record) for record in journal)
    return {match[1]: dict(record) for match, record in found if match}


class Inbox:
    """What a run is to do about the requests in its folder: each once, whatever happens."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._answers: dict[str, Answer] = {}
        self._unwritten: set[str] = set()
        self._unfinished: dict[str, tuple[int, int]] = {}

    def orders(self, journal: Iterable[Mapping[str, Any]], step: float) -> list[Order]:
        """Give what is to be carried out, the new first; answer what is done or makes no sense.

        Args:
            journal: what the run has carried out.
            step: where it is.
        """
        for name in tuple(self._unwritten):
            self.reply(name, self._answers[name])
        requests, answered = self._mailbox.names()
        done, found = requested(journal), []
        for name in sorted({*requests, *answered}):
            order = self._order(name, done.get(name), int(step))
            found += [] if order is None else [order]
        return sorted(found, key=lambda order: (order.step, order.name))

    def _order(self, name: str, record: Data | None, step: int) -> Order | None:
        answer = self._answers.get(name) or self._mailbox.answer(name)
        if answer is not None:
            self._answers[name] = answer
        if record is not None:
            if answer is None or not answer.accepted:
                edit = {k: v for k, v in record.items() if k not in WHERE}
                edit["why"] = _TAG.sub("", edit["why"]).rstrip()
                self.reply(name, Answer(True, int(record["step"]), "", edit))
            return None
        if answer is not None and not answer.accepted:
            return None
        try:
            if answer is not None and answer.edit is not None:
                return Order(name, read_edit(answer.edit), answer.step)
            return Order(name, self._mailbox.request(name), 0 if answer is None else answer.step)
        except StepsizeError as error:
            if not isinstance(error, UnfinishedError) or self._is_left(name):
                self.reply(name, Answer(False, step, str(error)))
        return None

    def _is_left(self, name: str) -> bool:
        """Tell whether nobody has written at a file since the last look."""
        before, now = self._unfinished.get(name), self._mailbox.age(name)
        self._unfinished[name] = now
        return before == now

    def reply(self, name: str, answer: Answer) -> None:
        """Answer a request; what cannot be written now is written later."""
        self._answers[name] = answer
        try:
            self._mailbox.reply(name, answer)
            self._unwritten.discard(name)
        except SpecError:
            self._unwritten.add(name)
