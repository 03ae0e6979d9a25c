"""`python -m pulvinar.cli`, the command line."""

from pulvinar.cli import main

raise SystemExit(main())
