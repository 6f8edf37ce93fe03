"""The morning's work on a night's prompt tables: what the night could not do, done in order (section 5.4)."""
