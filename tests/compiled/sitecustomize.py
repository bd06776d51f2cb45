"""What Python runs at its start in processes that the tests start: PYTHONPATH has this folder."""

import os
import sys
from pathlib import Path

if any(argument.endswith(("copier", "update.py")) for argument in sys.orig_argv[1:]):
    from kept import keep_compiled

    keep_compiled(Path(os.environ["PGCAT_STACK_TEST_COMPILED"]))
