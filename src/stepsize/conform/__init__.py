"""Whether a task keeps what it promises."""
