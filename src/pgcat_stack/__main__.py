"""`python -m pgcat_stack`, and where the script `pgcat-stack` begins."""

try:
    from pgcat_stack.interrupts import INTERRUPTED, leave_at_once, leave_soon

    leave_at_once()
    import sys

    from pgcat_stack.cli import main
except KeyboardInterrupt:  # before `leave_at_once`
    raise SystemExit(130) from None


def run() -> None:
    """Run the command and end the process with its exit code."""
    try:
        code = main()
    except KeyboardInterrupt:  # a second one, while the first was being handled
        code = INTERRUPTED
    leave_soon()
    sys.exit(code)


if __name__ == "__main__":
    run()
