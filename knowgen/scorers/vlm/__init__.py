"""Judges behind a chat endpoint: rubrics, parsing of replies, retries, cost estimates."""
