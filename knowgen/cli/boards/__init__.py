"""The subcommands of `knowgen board`, one file each, which parses, calls and prints."""
