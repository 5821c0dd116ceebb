"""`python -m simfleet`."""

from simfleet.cli import main

main()
