"""`python -m loraloom.server.cli`: the command line without the console script."""

import sys

from loraloom.server.cli import main

sys.exit(main())
