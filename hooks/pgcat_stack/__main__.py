"""`python -m pgcat_stack` is the command `pgcat-stack`."""

import sys

from pgcat_stack.cli import main

sys.exit(main())
