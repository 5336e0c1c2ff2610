"""Changes of plan while a run goes on: as values, and what they make of schedules."""
