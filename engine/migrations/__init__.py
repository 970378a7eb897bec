"""The database's history, step by step (Alembic). A step that was released is never edited: the next one follows it."""
