"""`python -m aftermap`."""

from aftermap.cli import main

main()
