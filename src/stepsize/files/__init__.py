"""Schedules as text and files: expressions, descriptions, JSON, YAML, TOML and their schema."""
