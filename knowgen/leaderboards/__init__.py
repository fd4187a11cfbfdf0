"""Leaderboards as folders of files: boards, submissions, their checks, and the site that is made from them."""
