"""What a schedule is, and every family."""
