"""Tokens clustered by what they chose, and the rows where they start best."""
