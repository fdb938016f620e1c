"""The console: pages for people on the service, rendered here, in the reader's language, with nothing from outside."""
