"""Campaigns: hostile inputs against one part of the package. Each prints counts and exits with 1 on a violation."""
