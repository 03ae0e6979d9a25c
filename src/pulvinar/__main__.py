"""`python -m pulvinar`, the command line where its script is not on the path."""

from pulvinar.cli import main

raise SystemExit(main())
