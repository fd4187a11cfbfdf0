"""`python -m knowgen`."""

from knowgen.cli.main import main

main()
