"""On PostgreSQL the database itself writes the log, and checks what each account may have entered."""
