"""From published data sets to task folders: fetch, check, convert."""
