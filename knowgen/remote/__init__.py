"""What calls to other machines share: addresses and keys, the pace of calls, how long a server asks to wait."""
