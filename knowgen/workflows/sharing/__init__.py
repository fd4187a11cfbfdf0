"""Runs and boards to and from the Hugging Face hub: what is sent, its checks, its data card, and how it is fetched."""
