"""Private seasons: publish a secret world, score what is sent, close, reveal, and verify.

The maintainer's private folder has `secret.yaml`, the whole `world`, and one run directory for each scored revision in
`runs`. The board's folder and the public folder hold nothing of these until the season is revealed.
"""
