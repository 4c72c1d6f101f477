"""`python -m bench [name …]`: how fast the hot paths are, each beside its bare baseline in the same run."""
