"""Service: every operation over HTTP, for people who signed in and programs with tokens."""
