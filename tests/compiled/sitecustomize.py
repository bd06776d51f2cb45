"""What Python runs at its start in processes that the tests start: PYTHONPATH has this folder."""

import sys

if any(argument.endswith(("copier", "update.py")) for argument in sys.orig_argv[1:]):
    from kept import keep_compiled, trust_modes

    keep_compiled()
    if any(argument.endswith("copier") for argument in sys.orig_argv[1:]):
        trust_modes()
