"""Looking at schedules over a real run: pictures, tables, words, differences, golden files."""
