"""Telling a running job to change its plan, through files in its folder.

| file | written by | holds |
| --- | --- | --- |
| `RUN/edits/NAME.json` | whoever asks | an edit: `{"format": 1, "edit": {...}}` |
| `RUN/edits/NAME.answer.json` | the run | accepted or not, at which step, why not, the edit |
| `RUN/status.json` | the run | where it is, and what it was told (see `watch`) |

Every file is written whole or not at all, and read as data: nothing is imported or evaluated.
An edit is carried out once: its request's name goes into the journal together with it, and the
journal is in the checkpoint. So a run that resumes from a checkpoint older than an accepted edit
finds the answer without the entry, and carries it out again at the step that the answer names; one
that resumes from a newer checkpoint finds the entry. Where a process dies between any two of these
writes, what is missing is made up at the next look. A run that is begun anew in the same folder
makes the accepted edits again too: another run has another folder.
"""

import json
import os
import re
import stat
import time
from pathlib import Path
from typing import Any, NamedTuple

from stepsize.edits.kinds import Edit, edit_data, edit_from
from stepsize.errors import SpecError, StepsizeError
from stepsize.files.disk import write_whole

Data = dict[str, Any]
FORMAT = 1
_LARGEST = 2**16  # bytes of a request: a plan of many parts has a tenth
_NAME = re.compile(r"(\w[\w.-]{0,99})\.json", re.ASCII)
_ANSWER = ".answer"
_STATUS = {
    "pid": int,
    "step": int,
    "updated": float,
    "within": float,
    "journal": list,
    "keys": list,
}


class Answer(NamedTuple):
    """What the run says to a request; the edit is kept in it, so that it can be made again."""

    accepted: bool
    step: int
    why: str = ""
    edit: Data | None = None


class UnfinishedError(SpecError):
    """A file is not whole; somebody may be writing it."""


class Mailbox:
    """The files of a run, as both sides use them."""

    def __init__(self, run: "str | os.PathLike[str]") -> None:
        self.run = Path(run)
        self.folder = self.run / "edits"

    def make(self) -> None:
        """Make the folders; `SpecError` where that fails."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SpecError(f"{self.folder}: cannot be made: {error.strerror}") from None

    def names(self) -> tuple[list[str], list[str]]:
        """Give the names of all requests and of those that are answered, in order of time."""
        try:
            files = sorted(os.listdir(self.folder))  # noqa: PTH208 (names alone, which is cheaper)
        except OSError:
            return [], []
        found = [match[1] for match in map(_NAME.fullmatch, files) if match]
        answered = [name.removesuffix(_ANSWER) for name in found if name.endswith(_ANSWER)]
        return [name for name in found if not name.endswith(_ANSWER)], answered

    def send(self, edit: Edit) -> str:
        """Write a request; give its name."""
        self.make()
        name = f"{time.time_ns():020d}-{os.urandom(4).hex()}"
        self._write(self.folder / f"{name}.json", {"edit": edit_data(edit), "asked": time.time()})
        return name

    def request(self, name: str) -> Edit:
        """Read a request; `StepsizeError` for what is none, `UnfinishedError` for a part of one."""
        data = _read(self.folder / f"{name}.json")
        if not isinstance(data.get("edit"), dict):
            cure = 'write {"format": 1, "edit": {"kind": "cool_down", "over": "5%"}}'
            raise SpecError(f"edit: expected an object with a 'kind'; {cure}")
        return read_edit(data["edit"])

    def age(self, name: str) -> tuple[int, int]:
        """Give what changes where a file is written on."""
        try:
            found = (self.folder / f"{name}.json").stat()
        except OSError:
            return (0, 0)
        return found.st_size, found.st_mtime_ns

    def reply(self, name: str, answer: Answer) -> None:
        """Write an answer."""
        self._write(self._answer_file(name), {**answer._asdict(), "answered": time.time()})

    def answer(self, name: str) -> Answer | None:
        """Read an answer; None where there is none, or none that can be read."""
        try:
            data = _read(self._answer_file(name))
            edit = data["edit"]
            if not isinstance(data["accepted"], bool) or not isinstance(edit, dict | None):
                return None
            return Answer(data["accepted"], int(data["step"]), str(data["why"]), edit)
        except (SpecError, KeyError, TypeError, ValueError, OverflowError):
            return None

    def tell(self, status: Data) -> None:
        """Write the status."""
        self._write(self.run / "status.json", status)

    def status(self) -> Data:
        """Read the status; `SpecError` where there is none."""
        if not self.run.is_dir():
            raise SpecError(f"{self.run}: there is no such run folder")
        try:
            found = _read(self.run / "status.json", largest=2**24)
        except SpecError as error:
            cure = f"the run of that folder must call scheduler.watch(run={str(self.run)!r})"
            raise SpecError(f"{self.run}: has no status ({error}); {cure}") from None
        wrong = [key for key, kind in _STATUS.items() if not isinstance(found.get(key), kind)]
        if wrong:
            raise SpecError(f"{self.run}: its status has no usable {', '.join(wrong)}")
        return found

    def _answer_file(self, name: str) -> Path:
        return self.folder / f"{name}{_ANSWER}.json"

    def _write(self, path: Path, data: Data) -> None:
        write_whole(path, json.dumps({"format": FORMAT, **data}, indent=1))


def _read(path: Path, largest: int = _LARGEST) -> Data:
    """Read a JSON object; a pipe is not waited for, and a device is not read."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise SpecError("is no ordinary file")
            content = file.read(largest + 1)
    except OSError as error:
        raise UnfinishedError(f"cannot be read: {error.strerror}") from None
    if len(content) > largest:
        raise SpecError(f"has more than {largest} bytes")
    try:
        data = json.loads(content.decode("utf-8-sig"))
    except RecursionError:
        raise SpecError("is nested too deeply") from None
    except ValueError as error:
        raise UnfinishedError(f"not whole JSON: {error}") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise SpecError(f"expected an object with format {FORMAT}: write {{'format': {FORMAT}}}")
    return data


def read_edit(data: Data) -> Edit:
    """Read an edit; whatever is wrong with data from outside is an error of ours."""
    try:
        return edit_from(data)
    except StepsizeError:
        raise
    except Exception as error:  # noqa: BLE001 (it must not end training)
        raise SpecError(f"edit: cannot be read: {error!r}"[:300]) from None
