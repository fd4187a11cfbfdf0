"""Calls to other machines: addresses, rate control, prices and the chat client."""
