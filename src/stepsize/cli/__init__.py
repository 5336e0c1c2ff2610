"""The command line: `stepsize plot|table|check|describe|diff|convert|families|schema`."""
