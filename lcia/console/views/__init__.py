"""The console's pages, a module each: what a page shows is gathered here, how it looks is its template's."""
