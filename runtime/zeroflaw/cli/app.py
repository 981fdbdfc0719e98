"""The `zeroflaw` process: how errors and signals reach the user, whatever the command is."""

from __future__ import annotations

import sys
from typing import Final

from zeroflaw.cli.standard_streams import guard_standard_streams
from zeroflaw.station.interrupts import Terminated, raise_on_termination
from zeroflaw_engines.errors import ZeroflawError

PROGRAM: Final = "zeroflaw"
EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130
EXIT_SIGNALLED: Final = 128


def main() -> None:
    """Run the command line and end the process with its exit code."""
    try:
        guard_standard_streams()
        raise_on_termination()
        code = _exit_code()
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except Terminated as end:
        code = EXIT_SIGNALLED + end.number
    sys.exit(code)


def _exit_code() -> int | str | None:
    # The commands take long to import, and a user may interrupt that as well.
    from zeroflaw.cli.commands import all_commands
    from zeroflaw_engines.process.terminal import print_error

    try:
        all_commands()(prog_name=PROGRAM)  # also where `python -m zeroflaw` is what runs
    except SystemExit as end:
        return end.code
    except ZeroflawError as error:
        print_error(error)
        return EXIT_FAILED
    return 0


if __name__ == "__main__":
    main()
