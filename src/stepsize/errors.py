"""Every error of the library, as a tree.

```
StepsizeError
├── FieldError      a value given to a constructor breaks its rule      (also a ValueError)
├── SpecError       a file, a dictionary or a name describes no schedule (also a ValueError)
├── UnitError       a time cannot be converted to the unit asked for     (also a ValueError)
│   └── NoRoomError the parts of a schedule leave nothing for its "rest"
└── MismatchError   a saved state belongs to something else              (also a ValueError)
```

A message says which field, the rule, what was given, and the cure.
"""


class StepsizeError(Exception):
    """Base of all errors raised by stepsize."""


class FieldError(StepsizeError, ValueError):
    """A value breaks the rule of the field it was given to."""

    @classmethod
    def of(cls, field: str, rule: str, given: object, cure: str = "") -> "FieldError":
        """Build the one-sentence message: field, rule, what was given, cure."""
        tail = f"; {cure}" if cure else ""
        return cls(f"{field} must be {rule}, got {given!r}{tail}")


class SpecError(StepsizeError, ValueError):
    """A description (file, dictionary, kind) cannot be turned into a schedule."""


class UnitError(StepsizeError, ValueError):
    """A length of time cannot be converted with what the horizon knows."""


class NoRoomError(UnitError):
    """The parts of a schedule that have lengths leave nothing for the one that takes the rest."""


class MismatchError(StepsizeError, ValueError):
    """A saved state does not belong to what it is loaded into."""
