"""What Python runs at its start in processes that the tests start: PYTHONPATH has this folder."""

import sys

if any(argument.endswith("copier") for argument in sys.orig_argv[1:]):
    from copier_cache import spare_copier

    spare_copier()
elif any(argument.endswith(("update.py", "post_generate.py")) for argument in sys.orig_argv[1:]):
    from copier_cache import keep_compiled, keep_modules

    sys.modules["yamllint"] = None  # type: ignore[assignment] # Copier's own environment does not have it
    keep_modules()
    if any(argument.endswith("update.py") for argument in sys.orig_argv[1:]):
        keep_compiled()
