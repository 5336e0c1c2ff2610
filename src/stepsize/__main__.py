"""`python -m stepsize`: the command line."""

from stepsize.cli.app import main

main()
