"""Lint of schedules against their horizon: `check` in `lint.check`."""
