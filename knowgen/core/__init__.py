"""What every package builds on; imports nothing of the project but `knowgen.core.errors`."""
