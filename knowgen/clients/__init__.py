"""Calls to other machines: endpoint URLs, rate control, prices, safe fetching and the chat client."""
