"""`python -m zeroflaw`: the `zeroflaw` command of the Python that runs it."""

from zeroflaw.cli.app import main

if __name__ == "__main__":
    main()
