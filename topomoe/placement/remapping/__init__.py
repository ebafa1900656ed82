"""Which device gets which contents of a placement."""
