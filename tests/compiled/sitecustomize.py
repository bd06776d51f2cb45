"""What Python runs at its start in processes that the tests start: PYTHONPATH has this folder."""

import sys

if any(argument.endswith("copier") for argument in sys.orig_argv[1:]):
    from kept import spare_copier

    spare_copier()
elif any(argument.endswith("update.py") for argument in sys.orig_argv[1:]):
    from kept import keep_compiled

    keep_compiled()
