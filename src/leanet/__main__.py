"""`python -m leanet` is the command `leanet`."""

import sys

from leanet.cli import main

sys.exit(main())
