"""The texts that an agent sends to its policy: the project's own, or the official ones, read at run time."""
