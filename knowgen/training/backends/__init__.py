"""What trains: the contract of a backend, and those that are bundled."""
