"""Scorers: the contract, and judges that read a picture."""
